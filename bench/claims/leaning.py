"""Devices at the credible ends of their numbers, and what follows at either end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from bench.closed_form import Replica
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement
from twinfer.devices.profile import Device
from twinfer.devices.shape import Precision
from twinfer.devices.value import Value

Lean = Literal["slow", "value", "fast"]
_TIMES = ("layer_overhead_s", "collective_s", "launch_s", "step_overhead_s", "sequence_overhead_s", "layer_s", "hop_s")
_SMALL_IS_FAST = (*_TIMES, "token_s", "ramp_tokens")
_LARGE_IS_FAST = ("compute_efficiency", "memory_efficiency", "moe_factor", "fp8_factor", "fp4_factor", "micro_batches")
_RATES = ("bf16_flops", "fp8_flops", "fp4_flops", "memory_bytes_per_s", "collective_bytes_per_s", "ingest_bytes_per_s")
OPPOSITE: dict[Lean, Lean] = {"slow": "fast", "value": "value", "fast": "slow"}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with what it is when all numbers lie at their worse, and at their better ends."""

    low: float
    value: float
    high: float


def estimate(compute: Callable[[Lean], float]) -> Estimate:
    """A figure of leaning devices, whichever way it goes."""
    slow, value, fast = compute("slow"), compute("value"), compute("fast")
    return Estimate(min(slow, value, fast), value, max(slow, value, fast))


def leaning(device: Device, lean: Lean) -> Device:
    """A device whose numbers that decide its speed all lie at one end."""
    if lean == "value":
        return device
    changes: dict[str, object] = {}
    for names, fast_is_high in ((_SMALL_IS_FAST, False), ((*_LARGE_IS_FAST, *_RATES), True)):
        for name in names:
            held = getattr(device, name, None)
            end = "high" if fast_is_high == (lean == "fast") else "low"
            if isinstance(held, tuple):
                changes[name] = tuple(_at(point, end) for point in held)
            elif held is not None:
                changes[name] = _at(held, end)
    return msgspec.structs.replace(device, **changes)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Replicas of the catalogue's devices."""

    catalogue: Catalogue

    def chips(self, device: str, shape: str, degree: int, precision: Precision, lean: Lean = "value") -> Replica:
        """A model over chips that cut every layer."""
        profile = leaning(self.catalogue.device(device)[0], lean)
        return Replica(profile, load_shape(shape), Placement(degree, degree, precision))

    def wafers(self, shape: str, devices: int, precision: Precision, lean: Lean = "value") -> Replica:
        """A model over CS-3 systems."""
        profile = leaning(self.catalogue.device("cs3")[0], lean)
        return Replica(profile, load_shape(shape), Placement(devices, precision=precision))


def _at(value: Value, end: str) -> Value:
    return msgspec.structs.replace(value, value=getattr(value, end))
