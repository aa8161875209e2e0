"""A process that serves a KV pool until it is killed: prints its endpoint as one line of JSON."""

import sys
from collections.abc import Callable

import msgspec

from twinfer.core.config import TlsConfig
from twinfer.core.ids import HandoffId
from twinfer.kv.memory import PoolMemory
from twinfer.tls.credentials import Credentials, load_credentials
from twinfer.tls.roles import PeerRole
from twinfer.transport.base import KVSource
from twinfer.transport.nixl import NixlSource
from twinfer.transport.shm import ShmSource
from twinfer.transport.tcp import TcpSource

NUM_BLOCKS, BLOCK_BYTES = 64, 1 << 20
HANDOFF = HandoffId("5c" * 16)


def fill(memory: PoolMemory) -> None:
    """Every block holds its own number."""
    for block in range(memory.num_blocks):
        memory.block(block)[:] = bytes([block]) * memory.block_bytes


def credentials(files: list[str]) -> Credentials | None:
    """From the files of a worker's certificate, if there are any."""
    return load_credentials(TlsConfig(*files), PeerRole.WORKER)


def main() -> None:
    """Serve all blocks under one handoff."""
    memory = PoolMemory(NUM_BLOCKS, BLOCK_BYTES, prefault=False)
    fill(memory)
    makers: dict[str, Callable[[], KVSource]] = {"shm": ShmSource, "nixl": NixlSource}
    source = makers.get(sys.argv[1], lambda: TcpSource(credentials=credentials(sys.argv[2:])))()
    endpoint = source.start(memory)
    source.offer(HANDOFF, range(NUM_BLOCKS))
    sys.stdout.buffer.write(msgspec.json.encode(endpoint) + b"\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
