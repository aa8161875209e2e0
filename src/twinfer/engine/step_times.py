"""How long an emulated step takes: fixed times, or those of a device of the catalogue with a model's shape."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from twinfer.core.config import EmulationConfig, PoolConfig
from twinfer.core.errors import ConfigError
from twinfer.core.layout import DTYPE_BYTES, KVLayout
from twinfer.core.step import StepPlan
from twinfer.devices.catalogue import CATALOGUE, Catalogue, measured_directory
from twinfer.devices.fit import fit
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement, Work
from twinfer.devices.profile import Device, RooflineProfile
from twinfer.devices.shape import ModelShape
from twinfer.devices.step_time import step_seconds

STEADY_STEPS = 64
"""Times of steps are computed anew after that many."""


class StepTimes(Protocol):
    """Durations of steps."""

    def seconds(self, plan: StepPlan, ahead: int = 0) -> float:
        """How long the plan takes, or the step of the same sequences that comes so many steps later."""
        ...


@dataclass(frozen=True, slots=True)
class FixedTimes:
    """Prompts at a rate, and a time for decoding whatever the batch; 0 takes no time.

    Attributes:
        prefill_tokens_per_s: positions of slices of more than one token.
        decode_step_s: added where any slice has one token.
    """

    prefill_tokens_per_s: float
    decode_step_s: float

    def seconds(self, plan: StepPlan, ahead: int = 0) -> float:
        """How long the plan takes, or a later step."""
        lengths = [len(part.token_ids) for part in plan.slices]
        prefill_tokens = sum(length for length in lengths if length > 1)
        seconds = self.decode_step_s if 1 in lengths else 0.0
        if prefill_tokens and self.prefill_tokens_per_s:
            seconds += prefill_tokens / self.prefill_tokens_per_s
        return seconds


@dataclass(frozen=True, slots=True)
class DeviceTimes:
    """Times of a model on devices, as the catalogue has them.

    Attributes:
        scale: by which they are stretched.
    """

    profile: Device
    shape: ModelShape
    placement: Placement
    scale: float = 1.0

    def seconds(self, plan: StepPlan, ahead: int = 0) -> float:
        """How long the plan takes, or a later step."""
        work = [Work(len(part.token_ids), part.start + ahead) for part in plan.slices]
        return self.scale * step_seconds(self.profile, self.shape, self.placement, work)

    def kv_tokens(self, context_tokens: int) -> int:
        """Positions whose KV fits beside the weights, in contexts of that length."""
        empty = fit(self.profile, self.shape, self.placement)
        full = fit(self.profile, self.shape, self.placement, [context_tokens])
        return int(context_tokens * (empty.room_bytes - empty.weight_bytes) / full.kv_bytes)

    def __str__(self) -> str:
        return (
            f"{self.placement.devices} x {self.profile.name} with {self.shape.name} in {self.placement.precision}"
            + (f", {self.scale:g} times as slow" if self.scale != 1 else "")
        )


class SteadyTimes:
    """Times of steps, worked out once in a while for sequences that decode on side by side.

    Times grow with contexts in straight lines, but for a bend where a window is full: they are computed for now and for
    some steps ahead, and taken to lie on the line between.
    """

    def __init__(self, times: StepTimes) -> None:
        self._times = times
        self._starts: list[int] = []
        self._first = self._rise = 0.0

    def seconds(self, plan: StepPlan, ahead: int = 0) -> float:
        """How long the plan takes, or a later step."""
        return self._times.seconds(plan, ahead)

    def run_seconds(self, plan: StepPlan, steps: int) -> list[float]:
        """How long a plan that only decodes takes, and each of the steps after it."""
        starts = [part.start for part in plan.slices]
        past = starts[0] - self._starts[0] if len(starts) == len(self._starts) else -1
        if not 0 <= past <= STEADY_STEPS - steps or any(
            new - old != past for new, old in zip(starts, self._starts, strict=True)
        ):
            self._starts, past = starts, 0
            self._first = self._times.seconds(plan)
            self._rise = (self._times.seconds(plan, STEADY_STEPS) - self._first) / STEADY_STEPS
        return [self._first + self._rise * (past + step) for step in range(steps)]


def virtual_layout(pool: PoolConfig) -> KVLayout:
    """Fingerprints that stand for the KV of the model's shape, in ``pool.kv_dtype`` or else 16 bits.

    A position counts for its share of a context as long as they may get: layers with a window keep less.

    Raises:
        ConfigError: no such shape.
    """
    emulation, dtype = pool.emulation, "bf16" if pool.kv_dtype == "weights" else pool.kv_dtype
    context = emulation.max_context_tokens
    kv_bytes = load_shape(emulation.model_shape).kv_bytes(context, DTYPE_BYTES[dtype])
    return KVLayout(1, 1, 1, pool.block_tokens, "fp32", math.ceil(kv_bytes / context))


def device_times(emulation: EmulationConfig, cache_dir: Path) -> DeviceTimes:
    """Times of the device that a pool emulates.

    Chips cut every layer over all of them; wafers hold one part of the layers each.

    Args:
        emulation: names the device.
        cache_dir: may hold profiles of this machine.

    Raises:
        ConfigError: no such device or shape, or the model does not fit.
    """
    if not emulation.time_scale > 0:
        raise ConfigError(
            f"time_scale is {emulation.time_scale:g}; it has to be above 0, and 1 is the device's own time"
        )
    profile, together = Catalogue((CATALOGUE, measured_directory(cache_dir))).device(emulation.device)
    shape = load_shape(emulation.model_shape)
    precision = shape.native if emulation.precision == "native" else emulation.precision
    devices = emulation.devices or max(together, fit(profile, shape, Placement(precision=precision)).devices_needed)
    cut = devices if isinstance(profile, RooflineProfile) else 1
    placement = Placement(devices, cut, precision)
    account = fit(profile, shape, placement, [1])
    if not account.fits:
        raise ConfigError(f"{account}; set `devices`")
    return DeviceTimes(profile, shape, placement, emulation.time_scale)
