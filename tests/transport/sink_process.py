"""A process that begins to pull over NIXL: says ``landed`` at its first bytes, and goes no further."""

import sys
import time

import msgspec

from tests.transport import source_process
from twinfer.core.capabilities import Endpoint
from twinfer.transport.gate import RunningPull
from twinfer.transport.nixl import NixlSink


def hold(num_bytes: int, pull: RunningPull) -> None:
    """A pace that stops at the first bytes."""
    sys.stdout.write("landed\n")
    sys.stdout.flush()
    sys.stdin.read()


def main() -> None:
    """Pull every block of the source whose endpoint comes as one line of JSON."""
    endpoint = msgspec.json.decode(sys.stdin.readline(), type=Endpoint)
    sink = NixlSink(pace=hold)
    sink.admit(source_process.HANDOFF)
    peer = sink.connect(endpoint, source_process.BLOCK_BYTES)
    views = [memoryview(bytearray(source_process.BLOCK_BYTES)) for _ in range(source_process.NUM_BLOCKS)]
    sink.pull(peer, source_process.HANDOFF, range(len(views)), views, time.monotonic() + 60)


if __name__ == "__main__":
    main()
