"""What is simulated, besides the trace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twinfer.core.config import Config
from twinfer.simulator.failures import Failure
from twinfer.simulator.hardware import Hardware

ALL_AS_ONE = 1 << 30


@dataclass(frozen=True, slots=True)
class Overheads:
    """What neither devices nor links take.

    Attributes:
        message_s: one message between a gateway and a worker, or between two workers.
        step_s: an engine's own time for each step.
        gateway_s: a gateway's time before it routes a request.
    """

    message_s: float = 200e-6
    step_s: float = 0.0
    gateway_s: float = 0.0


DEFAULT_OVERHEADS = Overheads()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A deployment and what befalls it.

    Attributes:
        config: the deployment.
        hardware: what each of its pools is made of.
        overheads: what neither devices nor links take.
        failures: that happen.
        seed: of whatever is drawn.
        max_run: steps taken as one at most; 1 takes each by itself, with the same result.
    """

    config: Config
    hardware: Mapping[str, Hardware]
    overheads: Overheads = DEFAULT_OVERHEADS
    failures: Sequence[Failure] = ()
    seed: int = 0
    max_run: int = ALL_AS_ONE
