"""Costs of steps: what is in one, and what a device's profile says of them."""

from pathlib import Path

from tests.fakes import a_request
from twinfer.core.capabilities import Role
from twinfer.core.config import EmulationConfig, PoolConfig
from twinfer.core.cost import prompt_work
from twinfer.core.step import Slice
from twinfer.devices.placement import Work
from twinfer.devices.step_time import step_seconds
from twinfer.engine.step_fit import StepFit, features
from twinfer.engine.step_seed import seed_cost, step_fit
from twinfer.engine.step_times import device_times

EMULATION = EmulationConfig(device="h100", model_shape="llama-3.1-8b")


def a_slice(start: int, length: int) -> Slice:
    """Positions of a sequence."""
    return Slice(a_request([1]), [1] * length, start, [0], None, [])


def test_what_is_in_a_step() -> None:
    """Prompts by position and by pairs, rows by their number and contexts; on average over the steps of a run."""
    assert features([a_slice(100, 1), a_slice(50, 1), a_slice(10, 4)]) == (1.0, 4.0, 48.0, 2.0, 150.0)
    assert features([a_slice(100, 1), a_slice(50, 1)], later=4) == (1.0, 0.0, 0.0, 2.0, 154.0)


def test_a_profile_seeds_the_line() -> None:
    """Within a third of the profile's time for a chunk of a prompt, and for steps that decode."""
    times = device_times(EMULATION, Path("nowhere"))
    cost = seed_cost(times, 2048)

    def truth(work: list[Work]) -> float:
        return step_seconds(times.profile, times.shape, times.placement, work)

    chunk = cost.fixed_s + cost.prefill_s(prompt_work(0, 2048))
    assert 0.67 < chunk / truth([Work(2048, 0)]) < 1.5
    assert 0.67 < cost.decode_s(16, 16 * 2048) / truth([Work(1, 2048)] * 16) < 1.5


def test_an_emulated_pool_without_a_device_has_no_costs() -> None:
    """A native one learns them, and one with a device begins with its profile's."""
    plain = PoolConfig(name="d", role=Role.DECODE, engine="emulated")
    assert step_fit(plain, Path("nowhere")) is None
    native = step_fit(PoolConfig(name="d", role=Role.DECODE), Path("nowhere"))
    assert isinstance(native, StepFit)
    assert native.cost() is None
    seeded = step_fit(PoolConfig(name="d", role=Role.DECODE, engine="emulated", emulation=EMULATION), Path("nowhere"))
    assert seeded is not None
    assert seeded.cost() is not None
