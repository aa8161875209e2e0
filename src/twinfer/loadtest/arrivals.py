"""When sessions are to begin: at random at a rate, at a trace's own times, or whenever somebody is free."""

import random
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from twinfer.core.errors import ConfigError
from twinfer.loadtest.work import Session


class LoadSpec(msgspec.Struct, frozen=True):
    """How the work is offered.

    Args:
        mode: ``open``: Poisson arrivals; ``trace``: the trace's own; ``closed``: users who wait for their answers.
        rate: sessions per second, where open.
        time_scale: a trace's times are divided by it.
        concurrency: users, where closed.
        max_sessions, max_s: whichever is reached first ends the offering.
        warmup_s: requests due before it are asked, and not measured.
        seed: of the arrivals.
    """

    mode: Literal["open", "trace", "closed"] = "open"
    rate: float = 1.0
    time_scale: float = 1.0
    concurrency: int = 1
    max_sessions: int | None = None
    max_s: float | None = None
    warmup_s: float = 0.0
    seed: int = 0

    @property
    def described(self) -> str:
        """In a few words."""
        if self.mode == "open":
            return f"{self.rate:g} requests/s, Poisson"
        if self.mode == "trace":
            return f"the trace's arrivals, {self.time_scale:g} times as fast"
        return f"{self.concurrency} at a time"


def check(spec: LoadSpec) -> None:
    """Refuse what cannot be.

    Raises:
        ConfigError: says which option.
    """
    for option, value in (
        ("--rate", spec.rate),
        ("--time-scale", spec.time_scale),
        ("--concurrency", spec.concurrency),
    ):
        if not 0 < value < 1e6:
            raise ConfigError(f"{option} is {value:g}; it has to be above 0")
    if spec.max_sessions is not None and spec.max_sessions < 1:
        raise ConfigError(f"--requests is {spec.max_sessions}; it has to be at least 1")
    if spec.max_s is not None and not 0 < spec.max_s < 1e7:
        raise ConfigError(f"--duration is {spec.max_s:g}; it has to be above 0")
    if spec.max_s is not None and spec.warmup_s >= spec.max_s:
        raise ConfigError("--warmup has to be shorter than --duration")


def timed(spec: LoadSpec, sessions: Iterable[Session]) -> Iterator[tuple[float, Session]]:
    """Each session with the moment at which it is to begin, until the offering ends; for open loads."""
    dice = random.Random(f"{spec.seed}/arrivals")
    at_s = 0.0
    for index, session in enumerate(sessions):
        if spec.mode == "trace":
            at_s = (session.trace_s or 0.0) / spec.time_scale
        else:
            at_s += dice.expovariate(spec.rate)
        if index == spec.max_sessions or (spec.max_s is not None and at_s >= spec.max_s):
            return
        yield at_s, session
