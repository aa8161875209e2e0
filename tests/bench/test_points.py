"""Which measured runs are compared, and that every other one says why not."""

import pytest
from bench.validation.points import POINTS, WAITING, of_rows, read

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.placement import Placement

CATALOGUE = Catalogue()
ROW = {
    "model_path": "meta-llama/Llama-3.1-70B",
    "system": "b200_sxm",
    "backend": "trtllm",
    "precision": "fp8",
    "isl": "8192",
    "osl": "1024",
    "concurrency": "4",
    "tp_size": "2",
    "attention_dp_size": "1",
    "moe_ep_size": "1",
    "batch_size": "4",
    "measured": "2025-10-29",
    "silicon_ttft_ms": "381.9",
    "silicon_tpot_ms": "10.9",
}


def test_a_row() -> None:
    """Its columns, in seconds; TensorRT-LLM keeps KV in 8 bits beside quantised weights."""
    (point,) = of_rows([ROW], CATALOGUE).points
    assert ("llama-3.1-70b", "b200") == point.group
    assert Placement(2, 2, "fp8", 1.0) == point.placement
    assert (8192, 1024, 4) == (point.prompt, point.answer, point.running)
    assert (0.3819, 0.0109) == pytest.approx((point.first_token_s, point.token_s))
    assert point.dated
    assert point.below_saturation


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_path": "deepseek-ai/DeepSeek-R1"}, "DeepSeek-R1: with and without multi-token prediction"),
        ({"model_path": "zhipuai/GLM-5"}, "models with linear or indexed attention"),
        ({"concurrency": ""}, "no concurrency given"),
        ({"tp_size": "64"}, "a degree of 16 to 72"),
        ({"attention_dp_size": "8"}, "attention over copies of the data"),
        ({"batch_size": "2"}, "attention over copies of the data"),
        ({"moe_ep_size": "4", "tp_size": "8"}, "experts cut in two ways"),
        ({"concurrency": "512", "batch_size": "512", "tp_size": "1"}, "weights and KV of all requests do not fit"),
        ({"silicon_ttft_ms": "23790"}, WAITING),
    ],
)
def test_what_cannot_be_compared_says_why(changes: dict[str, str], reason: str) -> None:
    """One reason, and no point."""
    reading = of_rows([ROW | changes], CATALOGUE)
    assert () == reading.points
    ((found, number),) = reading.left_out.items()
    assert found.startswith(reason)
    assert 1 == number


def test_a_slow_first_token_is_above_saturation() -> None:
    """More than half as long as the rest of the answer."""
    (point,) = of_rows([ROW | {"silicon_ttft_ms": "6000"}], CATALOGUE).points
    assert not point.below_saturation


def test_no_row_of_the_file_is_lost() -> None:
    """Points and reasons add up to 2,260 rows, in ten groups."""
    reading = read(POINTS, CATALOGUE)
    assert 2260 == len(reading.points) + sum(reading.left_out.values())
    assert 10 == len({point.group for point in reading.points})
