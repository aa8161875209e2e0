"""What neither devices nor links take, found on one workload so that it can be tried on another.

One number after the other is made larger and smaller as long as that brings simulated requests nearer to measured ones,
by smaller and smaller factors. Requests are compared one by one, by the medians of their differences: what befell few
of them, on a machine that others use too, does not count.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.simulator_check.replay import Served
from twinfer.simulator.recorder import Journey

FACTORS = (2.0, 1.3, 1.1, 1.03)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Of a simulation, none of them of a request.

    Attributes:
        message_us: one message between processes.
        step_us: an engine's own time for each step.
        gateway_us: a gateway's before it routes.
    """

    message_us: float = 500.0
    step_us: float = 50.0
    gateway_us: float = 2000.0


OVERHEADS = ("message_us", "step_us", "gateway_us")


def distance(served: Sequence[Served], journeys: Sequence[Journey]) -> float:
    """How far simulated times are from measured ones: median differences of both, each by the measured median."""
    first = [(one.ttft_s, journey.ttft_s or 0.0) for one, journey in zip(served, journeys, strict=True)]
    token = [
        (one.tpot_s, journey.tpot_s or 0.0) for one, journey in zip(served, journeys, strict=True) if one.tokens > 1
    ]
    return _distance(first) + _distance(token)


def fitted(names: Sequence[str], loss: Callable[[Parameters], float], start: Parameters) -> Parameters:
    """The parameters of those names that make the loss small, the others as they are."""
    best, least = start, loss(start)
    for factor in FACTORS:
        improved = True
        while improved:
            improved = False
            for name in names:
                for by in (factor, 1 / factor):
                    tried = replace(best, **{name: getattr(best, name) * by})
                    if (found := loss(tried)) < least * (1 - 1e-4):
                        best, least, improved = tried, found, True
                        break
    return best


def _distance(pairs: Sequence[tuple[float, float]]) -> float:
    apart = statistics.median(abs(measured - simulated) for measured, simulated in pairs)
    return apart / statistics.median(measured for measured, _ in pairs)
