"""What is done to whom, and when: a list drawn from a seed before anything begins. Pure."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from twinfer.core.errors import ConfigError

GATEWAY = "gateway"
MAX_AFTER_S = 1.5
SHORT = (0.1, 0.6)
LONG = (1.2, 2.0)
"""Bounds of a duration, in leases."""


class Kind(StrEnum):
    """Ways to disturb a process."""

    KILL = "kill"
    """SIGKILL."""
    PAUSE = "pause"
    """SIGSTOP, and SIGCONT within the lease."""
    LONG_PAUSE = "long pause"
    """SIGSTOP, and SIGCONT when every lease has ended."""
    PARTITION = "partition"
    """A worker is cut off from the other workers for less than the lease."""
    LONG_PARTITION = "long partition"
    """The same for longer than that."""


_FOR_GATEWAYS = (Kind.KILL, Kind.PAUSE, Kind.LONG_PAUSE)
PARTITIONS = (Kind.PARTITION, Kind.LONG_PARTITION)
_BOUNDS = {Kind.KILL: (0.0, 0.0), Kind.LONG_PAUSE: LONG, Kind.LONG_PARTITION: LONG}


@dataclass(frozen=True, slots=True)
class Event:
    """One disturbance.

    Attributes:
        role: ``gateway``, or that of the worker.
        target: the process's name.
        after_s: how long the load has gone on, since the deployment was last whole, when it strikes.
        duration_s: of a pause or partition; 0 for a kill.
    """

    kind: Kind
    role: str
    target: str
    after_s: float
    duration_s: float

    def __str__(self) -> str:
        return f"{self.kind} {self.target}" + (f" for {self.duration_s:.1f} s" if self.duration_s else "")


def make_plan(
    targets: Mapping[str, Sequence[str]], lease_s: float, num_events: int, seed: int, kinds: Collection[Kind]
) -> tuple[Event, ...]:
    """Every kind for every role comes up equally often, in random order, on a random process of that role.

    Args:
        targets: names of processes, by role.
        lease_s: of the deployment.
        num_events: how many.
        seed: of the dice.
        kinds: what is done to workers, and of it what can be done to gateways to these.

    Raises:
        ConfigError: nothing of it can be done to anybody.
    """
    dice = random.Random(seed)
    cells = [(kind, role) for role in targets for kind in Kind if kind in kinds and _applies(kind, role)]
    if not cells:
        raise ConfigError("no process of this deployment can be disturbed like that: choose other kinds with --only")
    drawn: list[tuple[Kind, str]] = []
    while len(drawn) < num_events:
        drawn += dice.sample(cells, len(cells))
    return tuple(_event(dice, kind, role, targets[role], lease_s) for kind, role in drawn[:num_events])


def _applies(kind: Kind, role: str) -> bool:
    return role != GATEWAY or kind in _FOR_GATEWAYS


def _event(dice: random.Random, kind: Kind, role: str, names: Sequence[str], lease_s: float) -> Event:
    target, after_s = dice.choice(names), dice.uniform(0.0, MAX_AFTER_S)
    return Event(kind, role, target, after_s, dice.uniform(*_BOUNDS.get(kind, SHORT)) * lease_s)
