"""Costs of steps: what is in one, and what a device's profile says of them."""

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import a_request
from twinfer.core.capabilities import Role
from twinfer.core.config import EmulationConfig, PoolConfig
from twinfer.core.cost import Backlog, StepCost, prompt_work
from twinfer.core.step import Slice
from twinfer.devices.placement import Work
from twinfer.devices.step_time import step_seconds
from twinfer.engine.step_fit import HIDES, Features, StepFit, features
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


def a_step(chance: random.Random) -> tuple[Features, float]:
    """One that decodes, computes a prompt, or both; and a factor of noise."""
    rows = chance.choice([0, chance.randrange(1, 64)])
    tokens = chance.randrange(16, 2048) if not rows or chance.random() < 0.4 else 0
    before, context = chance.randrange(0, 4096), rows * chance.randrange(100, 4000)
    return (1.0, tokens, tokens * (before + tokens / 2), rows, context), chance.uniform(0.97, 1.03)


def true_s(cost: StepCost, step: Features) -> float:
    """What a step takes."""
    _, tokens, pairs, rows, context = step
    decode = cost.decode_s(rows, context)
    return cost.pace * (decode + cost.added_s(Backlog(int(tokens), pairs), decode))


@settings(max_examples=25, deadline=None)
@given(
    hides=st.sampled_from([0.0, HIDES]),
    token_s=st.floats(5e-6, 1e-4),
    fixed_s=st.floats(0.002, 0.02),
    seed=st.integers(0, 1000),
)
def test_either_form_is_learned(hides: float, token_s: float, fixed_s: float, seed: int) -> None:
    """From nothing, whether prompts hide or add up: nearly all steps are foreseen within an eighth."""
    truth = StepCost(fixed_s, token_s, token_s / 20_000, fixed_s / 100, fixed_s / 200_000, 1.0, 2048, hides)
    chance, fit = random.Random(seed), StepFit(2048)
    for _ in range(400):
        step, noise = a_step(chance)
        fit.observe(step, noise * true_s(truth, step))
    found = fit.cost()
    assert found is not None
    steps = [a_step(chance)[0] for _ in range(100)]
    errors = sorted(abs(true_s(found, step) / true_s(truth, step) - 1.0) for step in steps)
    assert errors[90] < 0.125


def test_a_wrong_seed_is_given_up() -> None:
    """A device said that prompts hide, and they do not: the form changes, and not for one hiccup."""
    hiding = StepCost(0.01, 2e-5, 0.0, 1e-4, 1e-8, 1.0, 2048, HIDES)
    chance, fit, truth = random.Random(1), StepFit(2048, hiding), msgspec.structs.replace(hiding, hides=0.0)
    step = (1.0, 256.0, 0.0, 16.0, 16_000.0)
    fit.observe(step, true_s(hiding, step))
    fit.observe(step, 10.0 * true_s(hiding, step))
    hiccup = fit.cost()
    for _ in range(300):
        step, noise = a_step(chance)
        fit.observe(step, noise * true_s(truth, step))
    learned = fit.cost()
    assert hiccup is not None
    assert learned is not None
    assert (HIDES, 0.0) == (hiccup.hides, learned.hides)


@pytest.mark.parametrize(
    ("device", "shape", "hides"),
    [("xeon-amx", "qwen2.5-0.5b", True), ("cs3", "gpt-oss-120b", True), ("trn3", "gpt-oss-120b", False)],
)
def test_a_profile_says_whether_prompts_hide(device: str, shape: str, hides: bool) -> None:
    """Where each token touches more experts they add up; mixed steps are foreseen within a fifth."""
    times = device_times(EmulationConfig(device=device, model_shape=shape), Path("nowhere"))
    cost = seed_cost(times, 2048)
    assert hides == (cost.hides > 0.0)
    for tokens in (32, 256, 1024):
        work = [*[Work(1, 2048)] * 16, Work(tokens, 512)]
        step = (1.0, float(tokens), tokens * (512 + tokens / 2), 16.0, 16.0 * 2048)
        assert 0.8 < true_s(cost, step) / step_seconds(times.profile, times.shape, times.placement, work) < 1.25
