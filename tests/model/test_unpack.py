"""Parts from their sources: the same numbers, in the decoder's order."""

import pytest
import torch

from twinfer.model import mxfp4
from twinfer.model.part import Form, Part
from twinfer.model.unpack import pieces

pytestmark = pytest.mark.torch


def unpacked(part: Part, *sources: torch.Tensor) -> torch.Tensor:
    """The whole part."""
    return torch.cat([piece.flatten() for piece in pieces(part, sources)]).view(part.shape)


def test_stacked() -> None:
    """Sources follow each other, however many dimensions the part has."""
    first, second = torch.arange(6.0).view(2, 3), torch.arange(6.0, 12.0).view(2, 3)
    sources = (("a", (2, 3)), ("b", (2, 3)))
    assert torch.equal(torch.cat((first, second)), unpacked(Part("p", sources), first, second))
    assert torch.equal(torch.stack((first, second)), unpacked(Part("p", sources, served=(2, 2, 3)), first, second))


@pytest.mark.parametrize("form", ["stacked", "transposed", "mxfp4"])
@pytest.mark.parametrize("interleaved", [True, False])
def test_experts_together(form: Form, interleaved: bool) -> None:
    """Each expert's matrix is turned or decoded, and its alternating rows are sorted."""
    served = torch.randint(-3, 4, (3, 6, 32), generator=torch.Generator().manual_seed(0)).float()
    sources = [served]
    if form == "transposed":
        sources = [served.mT.contiguous()]
    if form == "mxfp4":
        blocks = torch.randint(256, (3, 6, 1, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        sources = [blocks, torch.full((3, 6, 1), 127, dtype=torch.uint8)]
        served = mxfp4.decode(*sources)
    named = tuple((str(i), tuple(source.shape)) for i, source in enumerate(sources))
    found = unpacked(Part("p", named, form, interleaved, (3, 6, 32)), *sources)
    order = [0, 2, 4, 1, 3, 5] if interleaved else range(6)
    assert torch.equal(served[:, list(order)], found)
