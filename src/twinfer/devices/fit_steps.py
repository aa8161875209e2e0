"""Fits a roofline to steps that were timed: rates, overheads and the ramp of one model on one device.

What is minimised are the squared logarithms of computed over measured times, plus a slight pull towards where the fit
begins, for what no step tells. The method is Levenberg's and Marquardt's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinfer.devices.placement import Placement, Work
from twinfer.devices.profile import RooflineProfile
from twinfer.devices.roofline import roofline_step_seconds
from twinfer.devices.shape import ModelShape
from twinfer.devices.value import Point, Quality, Value

FITTED = (
    "bf16_flops",
    "memory_bytes_per_s",
    "kv_bytes_per_s",
    "layer_overhead_s",
    "sequence_overhead_s",
    "ramp_tokens",
)
PULL = 0.02
_MOST_STEPS = 40
_BY = 1e-4
Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """A step and its time."""

    work: tuple[Work, ...]
    seconds: float


def fit_steps(
    profile: RooflineProfile, shape: ModelShape, placement: Placement, samples: Sequence[Sample], source: str
) -> RooflineProfile:
    """The profile with which computed times come nearest to those of the samples.

    Args:
        profile: of which all but rates, shares and overheads stays as it is.
        samples: at least one.
        source: of the fitted numbers, as the catalogue says it.
    """
    start = np.log(_begin(shape, placement, samples))
    begun = _with(_whole(profile, source), start, source)

    def residuals(at: Column) -> Column:
        tried = _with(begun, at, source)
        apart = [np.log(roofline_step_seconds(tried, shape, placement, one.work) / one.seconds) for one in samples]
        return np.concatenate([np.array(apart), PULL * max(1, len(samples)) ** 0.5 * (at - start)])

    at, damping = start.copy(), 1e-2
    found = residuals(at)
    for _ in range(_MOST_STEPS):
        slope = np.array([(residuals(at + _BY * row) - found) / _BY for row in np.eye(len(at))]).T
        curvature = slope.T @ slope
        step = -np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), slope.T @ found)
        tried = at + np.clip(step, -0.7, 0.7)
        better = residuals(tried)
        if better @ better < found @ found:
            at, found, damping = tried, better, max(damping / 4, 1e-8)
        else:
            damping *= 4
    return _with(begun, at, source)


def step_errors(
    profile: RooflineProfile, shape: ModelShape, placement: Placement, samples: Sequence[Sample]
) -> tuple[float, float]:
    """Median and largest error of computed times of steps."""
    errors = [abs(roofline_step_seconds(profile, shape, placement, one.work) / one.seconds - 1) for one in samples]
    return float(np.median(errors)), max(errors)


def _begin(shape: ModelShape, placement: Placement, samples: Sequence[Sample]) -> list[float]:
    """Values from the shortest and the longest step, as if each had one cause."""
    shortest, longest = (pick(one.seconds for one in samples) for pick in (min, max))
    flops = max(shape.linear_flops(sum(work.new_tokens for work in one.work)) / one.seconds for one in samples)
    bandwidth = shape.read_weight_bytes(placement.precision, 1) / shortest
    kv = max(sum(shape.kv_bytes(work.end) for work in one.work) for one in samples) / longest
    return [flops, bandwidth, max(kv, bandwidth / 4), 0.1 * shortest / shape.num_layers, 0.03 * shortest, 8.0]


def _whole(profile: RooflineProfile, source: str) -> RooflineProfile:
    """What is reached of the rates is what was measured, and there are no other overheads."""
    share = Point(at=1.0, value=1.0, low=1.0, high=1.0, quality=Quality.MEASURED, source=source)
    return msgspec.structs.replace(
        profile, compute_efficiency=(share,), memory_efficiency=(share,), launch_s=None, step_overhead_s=None
    )


def _with(profile: RooflineProfile, at: Column, source: str) -> RooflineProfile:
    fitted = {name: _value(float(value), source) for name, value in zip(FITTED, np.exp(at), strict=True)}
    return msgspec.structs.replace(profile, **fitted)


def _value(value: float, source: str) -> Value:
    return Value(value=value, low=value, high=value, quality=Quality.MEASURED, source=source)
