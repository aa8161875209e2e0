"""What steps cost before the first one, from the times that a device's profile gives."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from twinfer.core.config import PoolConfig
from twinfer.core.cost import StepCost
from twinfer.core.line_fit import LineFit
from twinfer.devices.placement import Work
from twinfer.devices.step_time import step_seconds
from twinfer.engine.step_fit import UNKNOWN, Features, StepFit, counted
from twinfer.engine.step_times import DeviceTimes, device_times

ROWS = (1, 4, 16, 64)
CONTEXTS = (256, 2048, 16384)
PROMPTS = (32, 128, 512, 2048, 8192)
BESIDE = (32, 256, 1024)
"""Chunks of prompts in steps that decode too."""
SHARES = (0.0, 0.5, 0.75, 0.9)
ROUNDS = 3


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
    """What explains a device's times for steps of usual sizes best, whatever share of a step hides prompts."""
    seen = []
    for rows, prompts in _steps(chunk_tokens):
        seconds = times.scale * step_seconds(times.profile, times.shape, times.placement, [*rows, *prompts])
        seen.append((_features(rows, prompts), seconds))
    line, found = UNKNOWN, []
    for hides in SHARES:
        line = _line(seen, line, hides)
        found.append((_error(seen, line, hides), hides, line))
    _, hides, (fixed, token, pair, row, context) = min(found)
    return StepCost(fixed, token, pair, row, context, 1.0, chunk_tokens, hides)


def _line(seen: Sequence[tuple[Features, float]], line: Features, hides: float) -> Features:
    """Fitted anew, from another one on, until it is known well which prompts are hidden."""
    for _ in range(ROUNDS):
        fit = LineFit(UNKNOWN)
        for step, seconds in seen:
            fit.observe(counted(step, line, hides, seconds), seconds)
        fixed, token, pair, row, context = fit.line
        line = fixed, token, pair, row, context
    return line


def _error(seen: Sequence[tuple[Features, float]], line: Features, hides: float) -> float:
    """Mean square of the logarithm."""
    fit = LineFit(line)
    errors = [math.log(fit.seconds(counted(step, line, hides)) / seconds) for step, seconds in seen]
    return sum(error * error for error in errors) / len(errors)


def _steps(chunk_tokens: int) -> Iterator[tuple[list[Work], list[Work]]]:
    """Sequences that decode, and chunks of prompts: each alone, and some together."""
    for rows in ROWS:
        for context in CONTEXTS:
            decoding = [Work(1, context)] * rows
            yield decoding, []
            for length in BESIDE:
                yield decoding, [Work(max(2, min(length, chunk_tokens // 2)), context)]
    for length in {min(length, chunk_tokens) for length in PROMPTS}:
        for context in (0, *CONTEXTS):
            if length > 1:
                yield [], [Work(length, context)]


def _features(rows: list[Work], prompts: list[Work]) -> Features:
    pairs = sum(work.new_tokens * (work.context_tokens + work.new_tokens / 2) for work in prompts)
    context = sum(work.context_tokens for work in rows)
    return 1.0, float(sum(work.new_tokens for work in prompts)), float(pairs), float(len(rows)), float(context)
