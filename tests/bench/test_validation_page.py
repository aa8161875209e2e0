"""docs/validation.md says what is computed now, and the catalogue holds what the fit found."""

import pytest
from bench.validation.page import FIGURE, FIRST_TOKEN_BAR, GROUP, TOKEN_BAR, Judgement, figure, judge, page
from bench.validation.parameters import OF_DEVICES
from bench.validation.runs import LINKS
from numpy import abs as size
from numpy import median

from tests.bench.pages import DOCS, assert_same
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.profile import RooflineProfile

CATALOGUE = Catalogue()


@pytest.fixture(scope="module")
def judgement() -> Judgement:
    """The fits, which take some seconds."""
    return judge(CATALOGUE)


def test_the_bars(judgement: Judgement) -> None:
    """Half of the runs of groups that no fit has seen lie within 15 % per token, and 25 % to the first one."""
    errors = judgement.by[GROUP]
    assert TOKEN_BAR >= median(size(errors.token))
    assert FIRST_TOKEN_BAR >= median(size(errors.first_token[judgement.below]))


def test_the_page(judgement: Judgement) -> None:
    """Its words are those that the command writes, and so are its numbers, up to the last digit's rounding."""
    assert_same((DOCS / "validation.md").read_text(), page(judgement, CATALOGUE))


def test_the_figure(judgement: Judgement) -> None:
    """The same for the histogram."""
    assert_same((DOCS / "figures" / FIGURE).read_text(), figure(judgement))


@pytest.mark.parametrize("name", ["h100", "h200", "b200", "b300"])
def test_the_catalogue_holds_the_fit(name: str, judgement: Judgement) -> None:
    """Each parameter of the class stands in the files of the devices it was fitted to, rounded to three digits."""
    device, _ = CATALOGUE.device(name)
    assert isinstance(device, RooflineProfile)
    line = CATALOGUE.link(LINKS[name]).line_bytes_per_s.value
    found = {parameter: getattr(judgement.parameters, parameter) for parameter in OF_DEVICES}
    found["collective_bytes_per_s"] = found.pop("collective_share") * line
    if device.fp4_flops is None:
        del found["fp4_factor"]
    held = {parameter: getattr(device, parameter) for parameter in found}
    values = {parameter: (one[0] if isinstance(one, tuple) else one).value for parameter, one in held.items()}
    assert found == pytest.approx(values, rel=0.02)
