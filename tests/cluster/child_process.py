"""A child for the supervisor's tests: does what its spec says."""

import os
import signal
import sys

import msgspec

from twinfer.cluster.lifeline import cluster_key, notify, read_spec
from twinfer.core.process import READY, Notice


class Play(msgspec.Struct, frozen=True):
    """What to do: fail at once, or become ready and wait, deaf to SIGTERM if asked to."""

    error: str = ""
    deaf: bool = False
    chatter: str = ""


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
    notify(Notice(READY))
    while sys.stdin.buffer.readline():
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
