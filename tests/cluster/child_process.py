"""A child for the supervisor's tests: does what its spec says."""

import os
import signal
import sys

import msgspec

from twinfer.cluster.lifeline import cluster_key, notify, read_spec
from twinfer.core.ids import WorkerId
from twinfer.core.process import READY, Leave, Notice, Standstill


class Play(msgspec.Struct, frozen=True):
    """What to do: fail at once, or become ready and wait, deaf to SIGTERM if asked to; or go when told to leave, with
    this exit code, or say that it reaches these workers, and that roles stay."""

    error: str = ""
    deaf: bool = False
    chatter: str = ""
    leaves: int | None = None
    reaches: tuple[WorkerId, ...] | None = None
    standstill: Standstill | None = None


def main() -> int:
    """Play it."""
    play = read_spec(Play)
    assert len(cluster_key()) == 32
    if play.error:
        notify(Notice(error=play.error))
        return 2
    if play.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if play.chatter:
        os.write(1, play.chatter.encode() + b"\n")
    notify(Notice("loading"))
    notify(Notice(READY, reaches=play.reaches, standstill=play.standstill))
    while line := sys.stdin.buffer.readline():
        if play.leaves is not None and msgspec.json.decode(line, type=Leave).within_s > 0:
            return play.leaves
    return 0


if __name__ == "__main__":
    sys.exit(main())
