from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from twinfer.model.kernels.library import Isa, Kernels, find_kernels, stored_matrix
from twinfer.model.packing import PACKINGS

BUILT = find_kernels(1)
pytestmark = [pytest.mark.torch, pytest.mark.skipif(BUILT is None, reason="the kernels were not built: no C compiler")]

SIZES = st.one_of(st.integers(1, 100), st.sampled_from([128, 256, 384, 896]))


def available() -> list[Kernels]:
    """The kernels in every instruction set of this CPU, with one thread and with more."""
    found = [find_kernels(threads, isa) for isa in Isa for threads in (1, 3)]
    return [kernels for kernels in found if kernels is not None]


def rounded(rows: Tensor, group: int) -> Tensor:
    """Rows as packed products see them: in 8 bits, with a scale per group of inputs."""
    padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % group)).double().view(len(rows), -1, group)
    scales = padded.abs().amax(-1, keepdim=True) / 127
    values = torch.where(scales > 0, (padded / scales).round(), 0.0)
    return (values * scales).flatten(1)[:, : rows.shape[1]]


def close(expected: Tensor, found: Tensor, tolerance: float) -> bool:
    """Whether all elements are within a share of the largest."""
    return bool((expected - found).abs().max() <= tolerance * (expected.abs().max() + 1e-30))


@settings(max_examples=60, deadline=None)
@given(m=st.integers(1, 40), n=SIZES, k=SIZES, seed=st.integers(0, 1000), has_bias=st.booleans())
def test_bf16_product(m: int, n: int, k: int, seed: int, has_bias: bool) -> None:
    """Every instruction set and number of threads gives the exact product, up to the order of fp32 sums."""
    torch.manual_seed(seed)
    weight, rows, bias = (torch.randn(shape).bfloat16() for shape in ((n, k), (m, k), (n,)))
    expected = rows.double() @ weight.double().T + (bias.double() if has_bias else 0)
    matrix = stored_matrix(weight, None, (n, k), 16)
    for kernels in available():
        given_bias = bias if has_bias else None
        assert close(expected, kernels.product(matrix, rows, given_bias, torch.float32), 2e-6), kernels.isa
        assert close(expected, kernels.product(matrix, rows, given_bias), 5e-3), kernels.isa


@pytest.mark.parametrize(
    ("m", "n", "k"), [(65, 16, 32), (512, 80, 896), (513, 33, 1056), (600, 7, 3104), (1030, 200, 64)], ids=str
)
def test_bf16_product_of_many_rows(m: int, n: int, k: int) -> None:
    """So it is for so many rows and inputs that they are taken in stretches, whole or not."""
    torch.manual_seed(m)
    weight, rows, bias = (torch.randn(shape).bfloat16() for shape in ((n, k), (m, k), (n,)))
    expected = rows.double() @ weight.double().T + bias.double()
    matrix = stored_matrix(weight, None, (n, k), 16)
    for kernels in available():
        assert close(expected, kernels.product(matrix, rows, bias, torch.float32), 3e-6), kernels.isa
        assert close(expected, kernels.product(matrix, rows, bias), 5e-3), kernels.isa


@settings(max_examples=60, deadline=None)
@given(weights=st.sampled_from(["int8", "int4"]), m=st.integers(1, 40), n=SIZES, k=SIZES, seed=st.integers(0, 1000))
def test_packed_product(weights: str, m: int, n: int, k: int, seed: int) -> None:
    """Products of packed matrices are those of what they stand for with rows in 8 bits; all paths agree closely."""
    torch.manual_seed(seed)
    packing = PACKINGS[weights]  # type: ignore[index]
    rows, bias = torch.randn(m, k).bfloat16(), torch.randn(n).bfloat16()
    packed, scales = packing.pack(torch.randn(n, k))
    meant = packing.unpack(packed, scales, k)[:n].double()
    exact = rows.double() @ meant.T + bias.double()
    expected = rounded(rows, packing.group) @ meant.T + bias.double()
    results = [
        kernels.product(stored_matrix(packed, scales, (n, k), packing.bits), rows, bias, torch.float32)
        for kernels in available()
    ]
    half_a_step = rows.double().abs().max() / 127 / 2
    bound = half_a_step * meant.abs().sum(1).max() * 1.05 + 1e-6
    for result in results:
        assert (result - exact).abs().max() <= bound
        # Where a quotient is near a half, fp32 and fp64 round it to different integers.
        assert (result - expected).abs().max() <= bound
        assert close(results[0], result, 2e-6)


@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize(("m", "n", "k"), [(165, 16, 32), (513, 40, 1056), (170, 33, 896)], ids=str)
def test_packed_product_of_many_rows(weights: str, m: int, n: int, k: int) -> None:
    """With many rows what a matrix stands for is rounded to bf16, or rows to 8 bits: near the exact product both."""
    torch.manual_seed(m)
    packing = PACKINGS[weights]  # type: ignore[index]
    rows, bias = torch.randn(m, k).bfloat16(), torch.randn(n).bfloat16()
    packed, scales = packing.pack(torch.randn(n, k))
    meant = packing.unpack(packed, scales, k)[:n].double()
    for kernels in available():
        tolerance = 4e-3 if kernels.isa == Isa.AMX else 2e-2
        found = kernels.product(stored_matrix(packed, scales, (n, k), packing.bits), rows, bias, torch.float32)
        assert close(rows.double() @ meant.T + bias.double(), found, tolerance), kernels.isa


@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_stay_so(weights: str, broken: float) -> None:
    """A broken row breaks its own results and no other's."""
    packing = PACKINGS[weights]  # type: ignore[index]
    packed, scales = packing.pack(torch.randn(20, 256))
    rows = torch.randn(12, 256).bfloat16()
    rows[5, 100] = broken
    for kernels in available():
        result = kernels.product(stored_matrix(packed, scales, (20, 256), packing.bits), rows)
        assert [row != 5 for row in range(12)] == torch.isfinite(result).all(1).tolist()


def test_refused_operands() -> None:
    """Rows, biases and weights that the kernels would misread are refused."""
    assert BUILT is not None
    weight = torch.randn(8, 64).bfloat16()
    matrix = stored_matrix(weight, None, (8, 64), 16)
    wide = torch.randn(2, 128).bfloat16()
    for rows in (wide[:, ::2], wide[:, :64], wide, wide[:, :64].float()):
        with pytest.raises(ValueError, match="rows must be bf16, contiguous"):
            BUILT.product(matrix, rows)
    with pytest.raises(ValueError, match="bias must be bf16"):
        BUILT.product(matrix, wide[:, :64].contiguous(), torch.zeros(8))
    with pytest.raises(ValueError, match="bias must be bf16"):
        BUILT.product(matrix, wide[:, :64].contiguous(), torch.zeros(7).bfloat16())
    with pytest.raises(ValueError, match="contiguous weights"):
        stored_matrix(weight.T, None, (64, 8), 16)


def test_read_sums_all_words() -> None:
    """The read loop reads everything: its sum is that of the array's 64-bit words."""
    words = torch.arange(64 * 1024 // 8 * 5)
    assert [int(words.sum())] * len(available()) == [kernels.read(words) for kernels in available()]


def test_threads_that_multiply_at_once_do_not_disturb_each_other() -> None:
    """One of them has the helpers; the others do their own work."""
    torch.manual_seed(0)
    weight, rows = torch.randn(640, 512).bfloat16(), [torch.randn(4, 512).bfloat16() for _ in range(4)]
    matrix = stored_matrix(weight, None, (640, 512), 16)
    expected = [each.double() @ weight.double().T for each in rows]
    for kernels in available():
        with ThreadPoolExecutor(4) as threads:
            jobs = [threads.submit(kernels.product, matrix, rows[i % 4], None, torch.float32) for i in range(400)]
        for i, job in enumerate(jobs):
            assert close(expected[i % 4], job.result(), 2e-6), kernels.isa
