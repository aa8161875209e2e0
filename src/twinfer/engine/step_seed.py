"""What steps cost before the first one: the line through the times that a device's profile gives."""

from collections.abc import Iterator
from pathlib import Path

from twinfer.core.config import PoolConfig
from twinfer.core.cost import StepCost
from twinfer.devices.placement import Work
from twinfer.devices.step_time import step_seconds
from twinfer.engine.step_fit import Features, StepFit
from twinfer.engine.step_times import DeviceTimes, device_times

ROWS = (1, 4, 16, 64)
CONTEXTS = (256, 2048, 16384)
PROMPTS = (32, 128, 512, 2048, 8192)
ROUNDS = 8


def step_fit(pool: PoolConfig, cache_dir: Path) -> StepFit | None:
    """What learns the costs of a pool's workers, from those of ``emulation.device`` on where one is named.

    ``None`` for an emulated pool without a device: the times it plays are nobody's.

    Raises:
        ConfigError: no such device or shape.
    """
    if not pool.emulation.device:
        return None if pool.engine == "emulated" else StepFit(pool.max_step_tokens)
    return StepFit(pool.max_step_tokens, seed_cost(device_times(pool.emulation, cache_dir), pool.max_step_tokens))


def seed_cost(times: DeviceTimes, chunk_tokens: int) -> StepCost:
    """The line through a device's times for steps of usual sizes."""
    fit = StepFit(chunk_tokens)
    for _ in range(ROUNDS):
        for rows, prompts in _steps(chunk_tokens):
            work = [*rows, *prompts]
            seconds = times.scale * step_seconds(times.profile, times.shape, times.placement, work)
            fit.observe(_features(rows, prompts), seconds)
    cost = fit.cost()
    assert cost is not None
    return StepCost(cost.fixed_s, cost.token_s, cost.pair_s, cost.row_s, cost.context_s, 1.0, chunk_tokens)


def _steps(chunk_tokens: int) -> Iterator[tuple[list[Work], list[Work]]]:
    """Sequences that decode, and chunks of prompts: each alone, and some together."""
    for rows in ROWS:
        for context in CONTEXTS:
            decoding = [Work(1, context)] * rows
            yield decoding, []
            yield decoding, [Work(max(2, chunk_tokens // 2), context)]
    for length in {min(length, chunk_tokens) for length in PROMPTS}:
        for context in (0, *CONTEXTS):
            if length > 1:
                yield [], [Work(length, context)]


def _features(rows: list[Work], prompts: list[Work]) -> Features:
    pairs = sum(work.new_tokens * (work.context_tokens + work.new_tokens / 2) for work in prompts)
    context = sum(work.context_tokens for work in rows)
    return 1.0, float(sum(work.new_tokens for work in prompts)), float(pairs), float(len(rows)), float(context)
