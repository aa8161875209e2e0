"""Failures that are asked for: a worker or its link goes away at a time, and comes back, or not."""

import re
from dataclasses import dataclass

from twinfer.core.errors import ConfigError

FORM = "WORKER@TIME, WORKER@TIME+DURATION, or the same after link:, such as decode-0@120s+30s or link:prefill-0@60s+5s"
_PATTERN = re.compile(r"(?P<link>link:)?(?P<worker>[^@\s]+)@(?P<at>\d+(\.\d+)?)s?(\+(?P<lasts>\d+(\.\d+)?)s?)?")


@dataclass(frozen=True, slots=True)
class Failure:
    """One of them.

    Attributes:
        worker: its name.
        at_s: when, in seconds since the trace began.
        lasts_s: until it is back; ``None`` for ever.
        link_only: the worker lives, but no other worker reaches it.
    """

    worker: str
    at_s: float
    lasts_s: float | None
    link_only: bool


def parse_failure(text: str) -> Failure:
    """What ``--fail`` says.

    Raises:
        ConfigError: it says nothing of that form.
    """
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise ConfigError(f"--fail {text!r} is not understood; write {FORM}")
    lasts = found["lasts"]
    return Failure(found["worker"], float(found["at"]), None if lasts is None else float(lasts), bool(found["link"]))
