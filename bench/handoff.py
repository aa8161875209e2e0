"""What moving KV between two processes of this machine costs, next to a plain copy.

A second process owns a KV pool, as a prefill worker does; this one pulls all of it chunk by chunk, as a decode worker
does. All ways are measured in every round, one after the other, so that other load on the machine meets all of them.

    python -m bench.handoff
    python -m bench.handoff --mib 1024 --block-kib 256 --rounds 15

Ways: `memcpy` copies within this process, block by block, on one thread, and is the yardstick. `shm map` copies out of
the mapped pool without a digest, and is what shared memory itself costs. `shm pull` is what a handoff does: it computes
the digest of what arrived, too. `shm whole` is a whole handoff of a sink: digests are compared, blocks of 16 tokens are
converted to blocks of 32, and the state machine commits. `tcp pull` goes over loopback, `tls pull` with certificates on
both sides.
"""

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from twinfer.core.capabilities import Endpoint
from twinfer.core.config import TlsConfig
from twinfer.core.grant import GrantTerms, Proof, Use
from twinfer.core.ids import Epoch, HandoffId, ModelId, RequestId, TenantId, WorkerId
from twinfer.core.layout import KVLayout
from twinfer.core.manifest import Chunk, root_digest
from twinfer.core.messages import Seal
from twinfer.core.request import GenerationRequest, Sampling, Stopping
from twinfer.core.tokens import Token
from twinfer.handoff.lease import Lease
from twinfer.handoff.sink import SinkHandoff, SinkState
from twinfer.kv.memory import PoolMemory
from twinfer.tls.authority import Authority
from twinfer.tls.credentials import load_credentials
from twinfer.tls.roles import LOCAL_HOSTS, PeerRole
from twinfer.transport.base import KVSink, PeerT
from twinfer.transport.digest import digest_blocks
from twinfer.transport.shm import ShmSink, ShmSource
from twinfer.transport.tcp import TcpSink, TcpSource
from twinfer.worker.compatibility import ConversionPlan
from twinfer.worker.intake import Intake, Staging
from twinfer.worker.transports import Connection

HANDOFF = HandoffId("be" * 16)
PULL_TIMEOUT_S = 60.0
CERTIFICATE_FILES = ("ca.pem", "certificate.pem", "key.pem")
_LAYER_BYTES = 2 * 2 * 16 * 64 * 2
"""K and V of two heads, 16 tokens, 64 elements, bf16: blocks count as so many layers of that."""
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


def serve(shape: Shape, certificates: TlsConfig) -> None:
    """The other process: offer a filled pool over all transports until standard input ends."""
    memory = _filled(shape)
    sources = (ShmSource(), TcpSource(), TcpSource(credentials=load_credentials(certificates, PeerRole.WORKER)))
    endpoints = [source.start(memory) for source in sources]
    for source in sources:
        source.offer(HANDOFF, range(shape.num_blocks))
    sys.stdout.buffer.write(msgspec.json.encode(endpoints) + b"\n")
    sys.stdout.flush()
    sys.stdin.read()


@contextmanager
def source_process(arguments: Sequence[str]) -> Iterator[tuple[Endpoint, Endpoint, Endpoint]]:
    """A second Python that runs ``serve``; its endpoints: shared memory, TCP, TCP with TLS."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield msgspec.json.decode(process.stdout.readline(), type=tuple[Endpoint, Endpoint, Endpoint])
        process.stdin.close()


def make_certificates(directory: Path) -> None:
    """A worker's, for this machine, signed by an authority of its own."""
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.create(now)
    contents = (authority.signed.certificate, *authority.issue(PeerRole.WORKER, LOCAL_HOSTS, now, 1))
    for name, content in zip(CERTIFICATE_FILES, contents, strict=True):
        (directory / name).write_bytes(content)


def certificate_files(directory: Path) -> TlsConfig:
    """Where ``make_certificates`` wrote."""
    return TlsConfig(*(str(directory / name) for name in CERTIFICATE_FILES))


def moves(
    shape: Shape, endpoints: tuple[Endpoint, Endpoint, Endpoint], certificates: TlsConfig, stack: ExitStack
) -> dict[str, Move]:
    """All ways of getting the pool's bytes here, by name; the first is the yardstick."""
    own, destination = _filled(shape), _filled(shape)
    targets = [destination.block(block) for block in range(shape.num_blocks)]
    shm, tcp = ShmSink(), TcpSink()
    tls = TcpSink(credentials=load_credentials(certificates, PeerRole.WORKER))
    for sink in (shm, tcp, tls):
        stack.callback(sink.close)
    shm_peer = stack.enter_context(closing(shm.connect(endpoints[0], shape.block_bytes)))
    tcp_peer = stack.enter_context(closing(tcp.connect(endpoints[1], shape.block_bytes)))
    tls_peer = stack.enter_context(closing(tls.connect(endpoints[2], shape.block_bytes)))
    mapped = shm_peer.view()
    assert mapped is not None
    return {
        "memcpy": _copy(own.view, targets),
        "shm map": _copy(mapped, targets),
        "shm pull": _pull(shm, shm_peer, shape, targets),
        "shm whole": _handoff(Connection(shm, shm_peer, endpoints[0]), own, shape),
        "tcp pull": _pull(tcp, tcp_peer, shape, targets),
        "tls pull": _pull(tls, tls_peer, shape, targets),
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


def _handoff(connection: Connection, own: PoolMemory, shape: Shape) -> Move:
    """All of the pool as one prompt's KV, through a sink's own conversion and state machine."""
    source = KVLayout(shape.block_bytes // _LAYER_BYTES, 2, 64, 16, "bf16")
    plan = ConversionPlan(source, msgspec.structs.replace(source, block_tokens=32), "bench", foreign=False)
    memory = PoolMemory(shape.num_blocks // 2, plan.sink.block_bytes, prefault=False)
    np.frombuffer(memory.view, np.uint8)[:] = 0x5A
    request = GenerationRequest(
        RequestId("bench"), ModelId("bench"), TenantId("bench"), (0,) * (shape.num_blocks * 16), Stopping(1), Sampling()
    )
    terms = _terms(plan, shape.num_blocks)
    chunks = [
        Chunk(index, blocks.start, tuple(blocks), digest_blocks(own, blocks))
        for index, blocks in enumerate(shape.chunks())
    ]
    seal = Seal(HANDOFF, 1, len(chunks), root_digest(chunk.digest for chunk in chunks), Token(request.request_id, 0, 0))
    connection.sink.admit(HANDOFF)

    def move() -> None:
        now = time.monotonic()
        lease = Lease.start(now, PULL_TIMEOUT_S, PULL_TIMEOUT_S)
        machine = SinkHandoff(terms, request, lease, max_pulls=len(chunks))
        intake = Intake(plan, range(len(request.prompt)), memory, Staging(shape.chunk_blocks * shape.block_bytes))
        intake.bind(tuple(range(memory.num_blocks)))
        machine.sealed(seal, terms.source_epoch, now)
        for chunk in chunks:
            machine.offered(chunk, terms.source_epoch, now)
            machine.pulled(chunk.index, intake.pull(connection, HANDOFF, chunk, lease.cap), now)
        if machine.state is not SinkState.COMMITTED:
            raise SystemExit(f"the handoff ended {machine.state}")

    return move


def _terms(plan: ConversionPlan, num_blocks: int) -> GrantTerms:
    return GrantTerms(
        handoff=HANDOFF,
        attempt=1,
        tenant=TenantId("bench"),
        request="",
        fingerprint="",
        source=WorkerId("there"),
        source_epoch=Epoch("1"),
        sink=WorkerId("here"),
        sink_epoch=Epoch("1"),
        sink_address="",
        wire=plan.source,
        provenance=plan.provenance,
        use=Use.DECODE,
        proof=Proof.DIGEST,
        start_block=0,
        end_block=num_blocks,
        ttl_s=PULL_TIMEOUT_S,
        expires_unix_s=0.0,
    )


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
    parser.add_argument("--chunk-kib", type=int, default=2048, help="bytes in one pull (default: 2048)")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each way (default: 9)")
    parser.add_argument("--serve", metavar="DIRECTORY", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    block_kib = arguments.block_kib
    shape = Shape(arguments.mib * 512 // block_kib * 2, block_kib * 1024, max(1, arguments.chunk_kib // block_kib))
    if arguments.serve:
        serve(shape, certificate_files(Path(arguments.serve)))
        return 0
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        make_certificates(Path(directory))
        own = [f"--mib={arguments.mib}", f"--block-kib={block_kib}", f"--serve={directory}"]
        endpoints = stack.enter_context(source_process(own))
        ways = moves(shape, endpoints, certificate_files(Path(directory)), stack)
        speeds = measure(ways, shape.num_bytes, arguments.rounds)
    print(f"{arguments.mib} MiB in blocks of {block_kib} KiB, {arguments.chunk_kib} KiB a pull")
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}\n")
    print(report(speeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
