import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinfer.model.packing import PACKINGS
from twinfer.model.spec import StoredFormat

pytestmark = pytest.mark.torch


@settings(max_examples=40, deadline=None)
@given(
    weights=st.sampled_from(["int8", "int4"]),
    outputs=st.integers(1, 40),
    inputs=st.integers(1, 300),
    scale=st.sampled_from([1e-6, 0.02, 30.0]),
    seed=st.integers(0, 1000),
)
def test_error_is_bounded(weights: StoredFormat, outputs: int, inputs: int, scale: float, seed: int) -> None:
    """An element comes back within a step: half by rounding, half where its scale was rounded down. At 4 bits the
    largest of a group may be off by more, where clipping them brought the others closer."""
    packing = PACKINGS[weights]
    rows = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) * scale
    packed, scales = packing.pack(rows)
    assert packing.shapes(outputs, inputs) == (tuple(packed.shape), tuple(scales.shape))
    found = packing.unpack(packed, scales, inputs)
    assert not found[outputs:].any()
    for first in range(0, inputs, packing.group):
        group = slice(first, first + packing.group)
        step = rows[:, group].abs().amax(1, keepdim=True) / (packing.offset - (weights == "int8"))
        worst = ((found[:outputs, group] - rows[:, group]).abs() / step).max().item()
        assert worst <= (0.51 + 0.004 * 127 if weights == "int8" else 1.7)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_what_is_representable_is_exact(weights: StoredFormat) -> None:
    """Integers times a power of two come back as they were, zeros too."""
    packing = PACKINGS[weights]
    rows = torch.randint(1 - packing.offset, packing.offset, (35, 200)).float()
    rows[:, :: packing.group] = -packing.offset if weights == "int4" else packing.offset - 1
    rows[3] = 0
    assert torch.equal(rows / 64, packing.unpack(*packing.pack(rows / 64), 200)[:35])


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_slabs_of_whole_panels_are_packed_alike(weights: StoredFormat) -> None:
    """A matrix packed in pieces of 16 rows is the matrix packed at once."""
    packing = PACKINGS[weights]
    rows = torch.randn(50, 130)
    pieces = [packing.pack(piece) for piece in torch.split(rows, 32)]
    whole = packing.pack(rows)
    for index in range(2):
        assert torch.equal(whole[index], torch.cat([piece[index] for piece in pieces]))
