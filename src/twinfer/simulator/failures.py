"""Failures that are asked for: from a time on a worker or its link is gone, or slower, for a while or for ever."""

import re
from dataclasses import dataclass

from twinfer.core.errors import ConfigError

FORM = (
    "WORKER@TIME, WORKER@TIME+DURATION, the same after link:, and *FACTOR behind it for slower instead of gone, "
    "such as decode-0@120s+30s, link:prefill-0@60s+5s or decode-1@60s+30s*10"
)
_PATTERN = re.compile(
    r"(?P<link>link:)?(?P<worker>[^@\s]+)@(?P<at>\d+(\.\d+)?)s?(\+(?P<lasts>\d+(\.\d+)?)s?)?(\*(?P<times>\d+(\.\d+)?))?"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One of them.

    Attributes:
        worker: its name.
        at_s: when, in seconds since the trace began.
        lasts_s: until it is back; ``None`` for ever.
        link_only: the worker lives, but no other worker reaches it.
        slower: how many times as long its steps or transfers take; ``None`` where nothing comes of them.
    """

    worker: str
    at_s: float
    lasts_s: float | None
    link_only: bool
    slower: float | None = None


def parse_failure(text: str) -> Failure:
    """What ``--fail`` says.

    Raises:
        ConfigError: it says nothing of that form.
    """
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise ConfigError(f"--fail {text!r} is not understood; write {FORM}")
    lasts, times = found["lasts"], found["times"]
    if times is not None and float(times) <= 0:
        raise ConfigError(f"--fail {text!r} has a factor of {times}; it needs one above 0")
    return Failure(
        found["worker"],
        float(found["at"]),
        None if lasts is None else float(lasts),
        bool(found["link"]),
        None if times is None else float(times),
    )
