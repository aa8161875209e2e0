"""Published figures of devices and links follow from the catalogue within the bars."""

import pytest
from bench.validation import anchors
from bench.validation.anchors import Anchor

from twinfer.devices.catalogue import Catalogue

CATALOGUE = Catalogue()


def test_trainium2() -> None:
    """Ten times of one chip, each within 25 %."""
    found = anchors.trainium2(CATALOGUE)
    assert 10 == len(found)
    assert 0.25 >= max(abs(anchor.error) for anchor in found)


def test_wafers() -> None:
    """Six speeds from layers alone within 25 %, and each as well from the time per layer of the other five."""
    speeds = anchors.WAFER_SPEEDS
    found = anchors.wafers(CATALOGUE, speeds)
    assert 0.25 >= max(abs(anchor.error) for anchor in found)
    for index, anchor in enumerate(found):
        assert anchor.measured == pytest.approx(anchors.speed_from_the_others(speeds, index), rel=0.25)


def test_transfers() -> None:
    """Seventeen rows within 15 %."""
    found = anchors.transfers(CATALOGUE)
    assert 17 == len(found)
    assert 0.15 >= max(abs(anchor.error) for anchor in found)


def test_an_error_has_a_sign() -> None:
    """Too much is positive."""
    assert 0.25 == Anchor("a case", 4.0, 5.0, "s").error
    assert -0.5 == Anchor("a case", 4.0, 2.0, "s").error
