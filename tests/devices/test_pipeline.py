"""Step times of wafers: published speeds from layers alone, and how batches and crossings count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.model_config import load_shape, shape_names
from twinfer.devices.pipeline import latency_seconds, pipeline_interval_seconds, pipeline_step_seconds
from twinfer.devices.placement import Placement, Work
from twinfer.devices.profile import PipelineProfile

CS3 = next(entry for entry in Catalogue().entries if isinstance(entry, PipelineProfile) and entry.name == "cs3")
SHAPES = {name: load_shape(name) for name in shape_names()}
WORK = st.builds(Work, st.integers(1, 4096), st.integers(0, 30_000))


@pytest.mark.parametrize(
    ("tokens_per_s", "layers", "wafers"),
    [
        pytest.param(969, 126, 22, id="Llama-3.1-405B"),
        pytest.param(2522, 48, 22, id="Llama-4 Maverick"),
        pytest.param(1400, 94, 13, id="Qwen3-235B"),
        pytest.param(2000, 62, 26, id="Qwen3-Coder-480B"),
        pytest.param(1201, 92, 19, id="GLM-4.7"),
        pytest.param(3000, 36, 2, id="gpt-oss-120b"),
    ],
)
def test_published_speeds_follow_from_layers_alone(tokens_per_s: float, layers: int, wafers: int) -> None:
    """Dense and mixture, 36 to 126 layers: within 25 %, with the fewest wafers and with one as well."""
    for devices in (1, wafers):
        assert pytest.approx(tokens_per_s, rel=0.25) == 1 / latency_seconds(CS3, layers, devices)


def test_a_single_token_takes_its_layers_crossings_and_attention() -> None:
    """No byte count enters at a short context."""
    found = pipeline_step_seconds(CS3, SHAPES["gpt-oss-120b"], Placement(2, precision="mxfp4"), [Work(1, 0)])
    assert latency_seconds(CS3, 36, 2) == pytest.approx(found, rel=0.01)
    assert 36 * CS3.layer_s.value + CS3.hop_s.value == pytest.approx(latency_seconds(CS3, 36, 2))


def test_context_costs_attention() -> None:
    """A long context is slower than a short one, by its arithmetic."""
    shape, placement = SHAPES["llama-3.1-70b"], Placement(8)
    short, long = (pipeline_step_seconds(CS3, shape, placement, [Work(1, n)]) for n in (0, 98_304))
    rate = CS3.bf16_flops.value * CS3.compute_efficiency.value
    difference = shape.attention_flops(1, 98_304) - shape.attention_flops(1, 0)
    assert difference / rate == pytest.approx(long - short, rel=0.01)


def test_wafers_work_at_the_same_time() -> None:
    """A long prompt is done k times as fast on k wafers, crossings apart; one token is not."""
    shape = SHAPES["llama-3.1-70b"]
    one, four = (pipeline_step_seconds(CS3, shape, Placement(k), [Work(8192, 0)]) for k in (1, 4))
    assert one / 4 == pytest.approx(four - 3 * CS3.hop_s.value)
    alone, crossed = (pipeline_step_seconds(CS3, shape, Placement(k), [Work(1, 0)]) for k in (1, 4))
    assert 3 * CS3.hop_s.value == pytest.approx(crossed - alone)


def test_as_many_steps_are_in_flight_as_wafers_hold() -> None:
    """Four wafers take a light step of other sequences every quarter of its time."""
    shape, placement = SHAPES["llama-3.1-70b"], Placement(4)
    step = pipeline_step_seconds(CS3, shape, placement, [Work(1, 100)])
    assert step / 4 == pytest.approx(pipeline_interval_seconds(CS3, shape, placement, [Work(1, 100)]))


@given(st.sampled_from(sorted(SHAPES)), st.integers(1, 30), st.lists(WORK, min_size=1, max_size=8))
def test_more_work_takes_more_time_and_no_step_waits_longer_than_it_takes(
    model: str, devices: int, plan: list[Work]
) -> None:
    """A step with one sequence more is no shorter on one wafer, and the interval is never above the step's time."""
    shape, one = SHAPES[model], Placement()
    assert pipeline_step_seconds(CS3, shape, one, plan[:-1]) <= pipeline_step_seconds(CS3, shape, one, plan)
    many = Placement(devices)
    step = pipeline_step_seconds(CS3, shape, many, plan)
    assert 0 < pipeline_interval_seconds(CS3, shape, many, plan) <= step * (1 + 1e-9)


def test_nothing_takes_no_time() -> None:
    """There is nothing to pass along."""
    assert (0.0, 0.0) == (
        pipeline_step_seconds(CS3, SHAPES["qwen3-8b"], Placement(), []),
        pipeline_interval_seconds(CS3, SHAPES["qwen3-8b"], Placement(), []),
    )
