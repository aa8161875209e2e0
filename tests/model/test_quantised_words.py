"""Integers in words and scales in cells, for all sizes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tools.quantise_checkpoint import awq, gptq, in_cells, packed, words

from twinfer.core.errors import CheckpointError
from twinfer.model.quantised.awq import Awq
from twinfer.model.quantised.compressed import Compressed
from twinfer.model.quantised.gptq import Gptq
from twinfer.model.quantised.scheme import Slab
from twinfer.model.quantised.words import gathered, spread, unpack

pytestmark = pytest.mark.torch

BITS = st.sampled_from([4, 8])
SIZES = st.integers(1, 41)
SEEDS = st.integers(0, 1000)


def matrix(outputs: int, inputs: int, seed: int) -> torch.Tensor:
    """Random numbers, some rows of one sign, so that zeros lie at either end."""
    numbers = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    numbers[0::3], numbers[1::3] = numbers[0::3].abs(), -numbers[1::3].abs()
    return numbers


@given(bits=BITS, values=st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_words(bits: int, values: list[int]) -> None:
    """Unpacking gives what was packed, then the padding."""
    stored = torch.tensor([[value % (1 << bits) for value in values]])
    found = unpack(words(stored, bits), bits)[0].tolist()
    assert [*stored[0].tolist(), *[0] * (-len(values) % (32 // bits))] == found


def test_bits_of_a_word() -> None:
    """The lowest bits come first, and the sign bit is a bit like others."""
    assert [[1, 2, 3, 4, 5, 6, 7, 15]] == unpack(torch.tensor([0xF7654321 - (1 << 32)]).int()[:, None], 4).tolist()
    assert [[1, 2, 3, 128]] == unpack(torch.tensor([0x80030201 - (1 << 32)]).int()[:, None], 8).tolist()


@given(outputs=SIZES, inputs=SIZES, rows=st.integers(1, 50), columns=st.integers(1, 50), seed=SEEDS)
def test_cells(outputs: int, inputs: int, rows: int, columns: int, seed: int) -> None:
    """Each element gets the scale of its cell, whether or not cells fill the matrix."""
    elements, scales, numbers = in_cells(matrix(outputs, inputs, seed), rows, columns)
    assert torch.equal(numbers, elements.float() * spread(scales, (rows, columns), outputs, inputs))


@given(bits=BITS, version=st.integers(1, 2), symmetric=st.booleans(), outputs=SIZES, inputs=SIZES, seed=SEEDS)
def test_gptq(bits: int, version: int, symmetric: bool, outputs: int, inputs: int, seed: int) -> None:
    """Any matrix is read as it was written; a zero of 0 wraps around where 1 is taken off."""
    stored, numbers = gptq(bits, symmetric, version, 8).encode(matrix(outputs, inputs, seed))
    scheme = Gptq(bits, 8, symmetric, False, 2 - version)
    assert torch.equal(numbers, scheme.rows(Slab("m", stored, outputs, inputs)))
    del stored["g_idx"]
    assert torch.equal(numbers, scheme.rows(Slab("m", stored, outputs, inputs)))


@given(outputs=SIZES, inputs=SIZES, group=st.sampled_from([0, 8]), seed=SEEDS)
def test_awq(outputs: int, inputs: int, group: int, seed: int) -> None:
    """So it is with AWQ's order."""
    stored, numbers = awq(group).encode(matrix(outputs, inputs, seed))
    assert torch.equal(numbers, Awq(group).rows(Slab("m", stored, outputs, inputs)))


@given(bits=BITS, symmetric=st.booleans(), reordered=st.booleans(), outputs=SIZES, inputs=SIZES, seed=SEEDS)
def test_compressed(bits: int, symmetric: bool, reordered: bool, outputs: int, inputs: int, seed: int) -> None:
    """And with packed integers of compressed-tensors."""
    stored, numbers = packed(bits, symmetric, 8, reordered).encode(matrix(outputs, inputs, seed))
    scheme = Compressed("pack-quantized", bits, (1, 8), symmetric, reordered)
    assert torch.equal(numbers, scheme.rows(Slab("m", stored, outputs, inputs)))


def test_zero_points_that_are_not_packed() -> None:
    """Older writers left zero points as int8."""
    stored, numbers = packed(4, False, 8).encode(matrix(6, 16, 0))
    points = unpack(stored["weight_zero_point"].T, 4).T[:6] - 8
    scheme = Compressed("pack-quantized", 4, (1, 8), False, False)
    found = scheme.rows(Slab("m", stored | {"weight_zero_point": points.to(torch.int8)}, 6, 16))
    assert torch.equal(numbers, found)


@pytest.mark.parametrize("groups", [[0, 2], [-1, 1]])
def test_groups_that_there_are_not(groups: list[int]) -> None:
    """A group without a scale is refused, below 0 too."""
    with pytest.raises(CheckpointError) as raised:
        gathered(torch.ones(2, 3), 0, torch.tensor(groups), "m.g_idx")
    assert "tensor m.g_idx must name groups from 0 to 1; copy or download it again" == str(raised.value)


def test_zeros_that_are_not_in_the_middle() -> None:
    """Symmetric weights have their zeros in the middle, whichever way they are stored; else the file is broken."""
    stored, _ = gptq(symmetric=False).encode(matrix(8, 16, 0))
    with pytest.raises(CheckpointError) as raised:
        Gptq(4, 16, True, False, 1).rows(Slab("m", stored, 8, 16))
    expected = "tensor m.qzeros must hold 7 or 8 everywhere, as config.json says that sym is true"
    assert expected == str(raised.value)


def test_fp8_as_transformers_reads_it() -> None:
    """The same bytes mean the same numbers to transformers."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    elements, scales, _ = in_cells(matrix(64, 96, 1), 32, 48)
    expected = Fp8Dequantize(None)._dequantize_one(elements, scales, torch.float32)
    assert torch.equal(expected, elements.float() * spread(scales, (32, 48), 64, 96))
