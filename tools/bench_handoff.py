"""What moving KV between two processes of this machine costs, next to a plain copy.

A second process owns a KV pool, as a prefill worker does; this one pulls all of it chunk by chunk, as a decode worker
does. All ways are measured in every round, one after the other, so that other load on the machine meets all of them.

    python tools/bench_handoff.py
    python tools/bench_handoff.py --mib 1024 --block-kib 256 --rounds 15

Ways: `memcpy` copies within this process, block by block, on one thread, and is the yardstick. `shm map` copies out of
the mapped pool without a digest, and is what shared memory itself costs. `shm pull` and `tcp pull` are what a handoff
does: they compute the digest of what arrived. TCP goes over loopback.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import msgspec
import numpy as np

from twinfer.core.capabilities import Endpoint
from twinfer.core.ids import HandoffId
from twinfer.kv.memory import PoolMemory
from twinfer.transport.base import KVSink, PeerT
from twinfer.transport.shm import ShmSink, ShmSource
from twinfer.transport.tcp import TcpSink, TcpSource

HANDOFF = HandoffId("be" * 16)
PULL_TIMEOUT_S = 60.0
Move = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Shape:
    """What is moved in one go.

    Attributes:
        num_blocks: in the pool, all of which are moved.
        chunk_blocks: in one pull.
    """

    num_blocks: int
    block_bytes: int
    chunk_blocks: int

    @property
    def num_bytes(self) -> int:
        """Bytes moved by every measurement."""
        return self.num_blocks * self.block_bytes

    def chunks(self) -> Iterator[range]:
        """Blocks of every pull."""
        for start in range(0, self.num_blocks, self.chunk_blocks):
            yield range(start, min(start + self.chunk_blocks, self.num_blocks))


def serve(shape: Shape) -> None:
    """The other process: offer a filled pool over both transports until standard input ends."""
    memory = _filled(shape)
    sources = (ShmSource(), TcpSource())
    endpoints = [source.start(memory) for source in sources]
    for source in sources:
        source.offer(HANDOFF, range(shape.num_blocks))
    sys.stdout.buffer.write(msgspec.json.encode(endpoints) + b"\n")
    sys.stdout.flush()
    sys.stdin.read()


@contextmanager
def source_process(arguments: Sequence[str]) -> Iterator[tuple[Endpoint, Endpoint]]:
    """A second Python that runs ``serve``; its two endpoints, shared memory first."""
    command = [sys.executable, __file__, "--serve", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield msgspec.json.decode(process.stdout.readline(), type=tuple[Endpoint, Endpoint])
        process.stdin.close()


def moves(shape: Shape, shm: Endpoint, tcp: Endpoint, stack: ExitStack) -> dict[str, Move]:
    """All ways of getting the pool's bytes here, by name; the first is the yardstick."""
    own, destination = _filled(shape), _filled(shape)
    targets = [destination.block(block) for block in range(shape.num_blocks)]
    shm_sink, tcp_sink = ShmSink(), TcpSink()
    stack.callback(shm_sink.close)
    stack.callback(tcp_sink.close)
    shm_peer = stack.enter_context(closing(shm_sink.connect(shm, shape.block_bytes)))
    tcp_peer = stack.enter_context(closing(tcp_sink.connect(tcp, shape.block_bytes)))
    mapped = shm_peer.view()
    assert mapped is not None
    return {
        "memcpy": _copy(own.view, targets),
        "shm map": _copy(mapped, targets),
        "shm pull": _pull(shm_sink, shm_peer, shape, targets),
        "tcp pull": _pull(tcp_sink, tcp_peer, shape, targets),
    }


def _copy(pool: memoryview, targets: Sequence[memoryview]) -> Move:
    starts = range(0, pool.nbytes, targets[0].nbytes)
    blocks = [np.frombuffer(pool[start : start + targets[0].nbytes], np.uint8) for start in starts]
    pairs = [(np.frombuffer(target, np.uint8), block) for target, block in zip(targets, blocks, strict=True)]

    def move() -> None:
        for target, block in pairs:
            np.copyto(target, block)

    return move


def _pull(sink: KVSink[PeerT], peer: PeerT, shape: Shape, targets: Sequence[memoryview]) -> Move:
    sink.admit(HANDOFF)

    def move() -> None:
        for chunk in shape.chunks():
            destinations = [targets[block] for block in chunk]
            sink.pull(peer, HANDOFF, chunk, destinations, time.monotonic() + PULL_TIMEOUT_S)

    return move


def measure(ways: dict[str, Move], num_bytes: int, rounds: int) -> dict[str, list[float]]:
    """GB/s of every way in every round; a first round that warms up is not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, move in ways.items():
            start = time.perf_counter()
            move()
            if number:
                speeds[name].append(num_bytes / (time.perf_counter() - start) / 1e9)
    return speeds


def report(speeds: dict[str, list[float]]) -> str:
    """A table: median, least and most GB/s, and the median of each round's ratio to the yardstick."""
    yardstick = next(iter(speeds.values()))
    lines = [f"{'way':<10}{'GB/s':>8}{'least':>8}{'most':>8}{'of memcpy':>11}"]
    for name, values in speeds.items():
        ratio = statistics.median(value / base for value, base in zip(values, yardstick, strict=True))
        median = statistics.median(values)
        lines.append(f"{name:<10}{median:>8.2f}{min(values):>8.2f}{max(values):>8.2f}{ratio:>11.0%}")
    return "\n".join(lines)


def _filled(shape: Shape) -> PoolMemory:
    """A pool whose pages are there, so that no measurement pays for them."""
    memory = PoolMemory(shape.num_blocks, shape.block_bytes, prefault=False)
    np.frombuffer(memory.view, np.uint8)[:] = 0x5A
    return memory


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256, help="size of the pool (default: 256)")
    parser.add_argument("--block-kib", type=int, default=64, help="size of a block (default: 64)")
    parser.add_argument("--chunk-kib", type=int, default=1024, help="bytes in one pull (default: 1024)")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each way (default: 9)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    block_kib = arguments.block_kib
    shape = Shape(arguments.mib * 1024 // block_kib, block_kib * 1024, max(1, arguments.chunk_kib // block_kib))
    if arguments.serve:
        serve(shape)
        return 0
    own = [f"--mib={arguments.mib}", f"--block-kib={block_kib}"]
    with source_process(own) as (shm, tcp), ExitStack() as stack:
        speeds = measure(moves(shape, shm, tcp, stack), shape.num_bytes, arguments.rounds)
    print(f"{arguments.mib} MiB in blocks of {block_kib} KiB, {arguments.chunk_kib} KiB a pull")
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}\n")
    print(report(speeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
