"""A source that a test plays by hand: real KV of a real engine, offered in any order and as often as one likes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from tests.fakes import KEY
from tests.worker.workplace import LINK, SMALL, Station, eventually, small_engine
from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.config import PoolConfig
from twinfer.core.ids import Epoch, HandoffId, WorkerId, new_epoch
from twinfer.core.manifest import Chunk, root_digest
from twinfer.core.messages import Heartbeat, Offer, Seal, SinkHello, SourceHello, ToSink, ToSource
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Token
from twinfer.rpc.client import connect
from twinfer.tls.credentials import Credentials
from twinfer.transport.digest import digest_blocks
from twinfer.transport.tcp import TcpSource
from twinfer.worker.transports import start_sources

CHUNK_BLOCKS = 3


class HandSource:
    """A source's KV, its control stream to a sink, and what the sink said.

    Attributes:
        identity: as it introduces itself; ``epoch`` may be another one's.
    """

    def __init__(self, pool: PoolConfig) -> None:
        self._small = small_engine(pool, 64)
        self._sources = start_sources(LINK, self._small.memory, "", TcpSource())
        self.identity = WorkerIdentity(
            WorkerId("p"),
            new_epoch(),
            Role.PREFILL,
            self._small.engine.capabilities,
            "nowhere",
            self._sources.endpoints,
        )
        self.heard: list[ToSource] = []
        self.ended = False

    def compute(self, request: GenerationRequest) -> tuple[list[Chunk], Token]:
        """The chunks of a prompt's KV, and the first token."""
        self._small.engine.exports.submit(request)
        blocks: list[int] = []
        while True:
            outcome = self._small.engine.step()
            assert outcome is not None
            for part in outcome.exported:
                blocks += part.blocks
            if outcome.tokens:
                break
        chunks = []
        for start in range(0, len(blocks), CHUNK_BLOCKS):
            part = tuple(blocks[start : start + CHUNK_BLOCKS])
            chunks.append(Chunk(len(chunks), start, part, digest_blocks(self._small.memory, part)))
        return chunks, outcome.tokens[0]

    def reuse(self, chunks: list[Chunk], by: list[Chunk]) -> None:
        """Put the KV of other chunks, of the same sizes, where these lie, as if their blocks had been freed."""
        size, view = self._small.memory.block_bytes, self._small.memory.view
        for chunk, other in zip(chunks, by, strict=True):
            for block, source in zip(chunk.source_blocks, other.source_blocks, strict=True):
                view[block * size : (block + 1) * size] = view[source * size : (source + 1) * size]

    def offers(self, handoff: str, chunks: list[Chunk], attempt: int = 1) -> list[ToSink]:
        """All chunks as messages."""
        return [Offer(HandoffId(handoff), attempt, chunk) for chunk in chunks]

    def seal(self, handoff: str, chunks: list[Chunk], token: Token, attempt: int = 1) -> Seal:
        """The seal over these chunks."""
        return Seal(HandoffId(handoff), attempt, len(chunks), root_digest(chunk.digest for chunk in chunks), token)

    def beat(self, *handoffs: str) -> Heartbeat:
        """A sign of life."""
        return Heartbeat(self.identity.epoch, tuple(map(HandoffId, handoffs)))

    async def introduce(
        self, sink: Station, epoch: Epoch | None = None, credentials: Credentials | None = None
    ) -> SinkHello:
        """Open the control stream; what the sink answers."""
        self._client = connect(sink.identity.control, KEY, credentials=credentials)
        self._stream = self._client.handoff_stream()
        self._task = asyncio.create_task(self._listen())
        self.send(SourceHello(msgspec.structs.replace(self.identity, epoch=epoch or self.identity.epoch)))
        hello = await eventually(lambda: self.heard[0] if self.heard else None, "the sink's hello")
        assert isinstance(hello, SinkHello)
        return hello

    def send(self, *messages: ToSink) -> None:
        """Say these, in order."""
        for message in messages:
            self._stream.send_soon(message)

    async def answers(self, count: int) -> list[ToSource]:
        """What the sink said after its hello, heartbeats excepted, once that is so much."""

        def look() -> list[ToSource] | None:
            said = [message for message in self.heard[1:] if not isinstance(message, Heartbeat)]
            return said if len(said) >= count else None

        return await eventually(look, f"{count} answers: {self.heard}")

    async def hang_up(self) -> None:
        """End the control stream."""
        await self._client.close()
        await self._task

    def close(self) -> None:
        """Let go of the memory."""
        self._sources.close()
        self._small.memory.close()

    async def _listen(self) -> None:
        async for message in self._stream:
            self.heard.append(message)
        self.ended = True


@contextlib.asynccontextmanager
async def hand_source(pool: PoolConfig = SMALL) -> AsyncIterator[HandSource]:
    """A source that is not connected yet."""
    source = HandSource(pool)
    try:
        yield source
        await source.hang_up()
    finally:
        source.close()
