"""Emulated steps take fixed times, or those that the catalogue computes for a device and a model's shape."""

from pathlib import Path

import msgspec
import pytest

from tests.fakes import a_request
from twinfer.core.config import EmulationConfig
from twinfer.core.errors import ConfigError
from twinfer.core.step import Slice, StepPlan
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement, Work
from twinfer.devices.step_time import step_seconds
from twinfer.engine.step_times import STEADY_STEPS, DeviceTimes, FixedTimes, SteadyTimes, device_times

CS3 = EmulationConfig(device="cs3")


def a_plan(*parts: tuple[int, int]) -> StepPlan:
    """Slices of so many tokens from a position on."""
    request = a_request([1] * 4)
    return StepPlan(tuple(Slice(request, [1] * length, start, [], None, []) for length, start in parts))


@pytest.mark.parametrize(
    ("parts", "seconds"),
    [(((100, 0),), 0.1), (((1, 5), (1, 9)), 0.02), (((1, 5), (100, 0)), 0.12), ((), 0.0)],
)
def test_fixed_times(parts: tuple[tuple[int, int], ...], seconds: float) -> None:
    """Prompts by their tokens, decoding by the step."""
    assert seconds == pytest.approx(FixedTimes(1000.0, 0.02).seconds(a_plan(*parts)))
    assert 0.0 == FixedTimes(0.0, 0.0).seconds(a_plan(*parts))


def test_times_of_a_device(tmp_path: Path) -> None:
    """Those of the catalogue for the same work, stretched."""
    profile, shape = Catalogue().device("trn3")[0], load_shape("qwen3-8b")
    emulation = EmulationConfig(device="trn3", model_shape="qwen3-8b", devices=2, time_scale=10.0)
    expected = step_seconds(profile, shape, Placement(2, 2), [Work(512, 1024), Work(1, 300)])
    assert 10 * expected == pytest.approx(device_times(emulation, tmp_path).seconds(a_plan((512, 1024), (1, 300))))


@pytest.mark.parametrize(
    ("emulation", "placement"),
    [
        (CS3, Placement(2, 1, "mxfp4")),
        (msgspec.structs.replace(CS3, precision="bf16"), Placement(7, 1, "bf16")),
        (msgspec.structs.replace(CS3, devices=5), Placement(5, 1, "mxfp4")),
        (EmulationConfig(device="h200"), Placement(1, 1, "mxfp4")),
        (EmulationConfig(device="h200", model_shape="llama-3.1-70b"), Placement(2, 2, "bf16")),
        (EmulationConfig(device="trn3-ultraserver-gen1"), Placement(64, 64, "mxfp4")),
    ],
)
def test_as_many_devices_as_the_weights_need(emulation: EmulationConfig, placement: Placement, tmp_path: Path) -> None:
    """Chips cut every layer over all of them, wafers none; a machine of many is taken whole."""
    assert placement == device_times(emulation, tmp_path).placement


def test_times_of_a_run_are_those_of_its_steps(tmp_path: Path) -> None:
    """Whether they are computed for this plan or for one some steps before; another company is computed anew."""
    times = device_times(CS3, tmp_path)
    steady = SteadyTimes(times)
    for start in (300, 304, 305, 300 + STEADY_STEPS, 20):
        plan = a_plan((1, start), (1, start + 700))
        expected = [times.seconds(plan, ahead) for ahead in range(4)]
        assert expected == pytest.approx(steady.run_seconds(plan, 4), rel=1e-9)
    alone = a_plan((1, 310))
    assert [times.seconds(alone)] == pytest.approx(steady.run_seconds(alone, 1), rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cs4"}, "no device or link 'cs4' in the catalogue; did you mean cs3"),
        ({"device": "tcp"}, "tcp is a link, no device"),
        ({"model_shape": "gpt-5"}, "no model shape 'gpt-5'"),
        ({"devices": 1}, "gpt-oss-120b does not fit on 1 x cs3: .* it would on 2; set `devices`"),
        ({"time_scale": 0.0}, "time_scale is 0; it has to be above 0"),
    ],
)
def test_what_cannot_be_emulated(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    """One sentence that says what to do."""
    emulation: EmulationConfig = msgspec.structs.replace(CS3, **changes)
    with pytest.raises(ConfigError, match=message):
        device_times(emulation, tmp_path)


def test_a_device_holds_as_much_kv_as_is_left(tmp_path: Path) -> None:
    """24 contexts of 96k fit on four wafers beside gpt-oss-120b in MXFP4."""
    times = device_times(msgspec.structs.replace(CS3, devices=4), tmp_path)
    assert 23 == times.kv_tokens(98_304) // 98_304


def test_it_says_what_it_is(tmp_path: Path) -> None:
    """For the start of a deployment."""
    times: DeviceTimes = device_times(msgspec.structs.replace(CS3, time_scale=2.0), tmp_path)
    assert "2 x cs3 with gpt-oss-120b in mxfp4, 2 times as slow" == str(times)
