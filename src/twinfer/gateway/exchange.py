"""The nouns between HTTP and the dialects: a call comes in, an outcome goes out.

A dialect's operation takes a ``Call`` and gives a finished ``Response``, or work to be generated together with how to
render it: in one body (``Plain``) or as a stream (``Streamed``).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response

from twinfer.core.clock import Clock
from twinfer.core.config import Config, ProfileConfig
from twinfer.core.errors import TwinferError
from twinfer.core.ids import TenantId
from twinfer.core.request import GenerationRequest
from twinfer.core.route import RouteKind
from twinfer.gateway.answers import Answer, Piece
from twinfer.gateway.base import Dispatcher
from twinfer.gateway.books import Books
from twinfer.gateway.metering import Meter
from twinfer.gateway.models import Models, ServedModel
from twinfer.gateway.text.reading import Reading
from twinfer.identity.principal import Principal

_LONG_BODY = 65_536
"""Bytes from which a body is read beside the event loop instead of in it (about 10 ms, were it all short turns)."""

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, read in full.

    Attributes:
        request_id: ours, unique; the client sees it in the response's headers.
        principal: who sent it.
        model: the path's model id, decoded; empty where the path has none.
        secure: whether it came over TLS.
        arrived_s: on the gateway's clock.
    """

    request_id: str
    principal: Principal
    model: str
    headers: Headers
    query: QueryParams
    body: bytes
    secure: bool
    arrived_s: float

    @property
    def tenant(self) -> TenantId:
        """The account that it belongs to."""
        return self.principal.tenant

    async def read(self, reader: Callable[[bytes], Read]) -> Read:
        """What a dialect's reader makes of the body.

        Raises:
            InvalidRequest: it is malformed, contradicts itself, or needs what this server does not do.
        """
        if len(self.body) >= _LONG_BODY:
            return await asyncio.to_thread(reader, self.body)
        return reader(self.body)


@dataclass(frozen=True, slots=True)
class Context:
    """What operations work with."""

    config: Config
    models: Models
    dispatcher: Dispatcher
    meter: Meter
    clock: Clock
    books: Books = field(default_factory=Books)


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer to generate.

    Attributes:
        reading: begins to read its tokens.
        fills_context: ``max_tokens`` is what the context has left, rather than what the client asked for.
        shares_prompt: an earlier choice has the same prompt, which is computed and counts once.
    """

    request: GenerationRequest
    reading: Callable[[], Reading]
    fills_context: bool
    shares_prompt: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """The answers to generate for one call.

    Attributes:
        choices: those to the first prompt come first.
        forced: the mode the client insists on.
        profile: the application inference profile that it named.
    """

    model: ServedModel
    choices: tuple[Choice, ...]
    forced: RouteKind | None
    profile: ProfileConfig | None = None

    @property
    def requests(self) -> tuple[GenerationRequest, ...]:
        """What the workers are asked; one for each choice."""
        return tuple(choice.request for choice in self.choices)

    @property
    def most(self) -> int:
        """Tokens that it may use: every prompt once, and the longest answers."""
        prompts = sum(len(choice.request.prompt) for choice in self.choices if not choice.shares_prompt)
        return prompts + sum(choice.request.stopping.max_tokens for choice in self.choices)


class StreamRendering(Protocol):
    """Writes one streamed response, in this order: begin, pieces any number of times, then end or failure."""

    @property
    def content_type(self) -> str:
        """The response's media type."""
        ...

    @property
    def keep_alive(self) -> bytes:
        """What shows that somebody is still there, while there is nothing to say; empty where nothing could."""
        ...

    def begin(self) -> bytes:
        """What opens the stream."""
        ...

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """What became known of the answers; may be nothing to show."""
        ...

    def end(self, answers: Sequence[Answer], latency_ms: int) -> bytes:
        """What closes the stream when all went well. ``latency_ms`` is from the call's arrival to the last token."""
        ...

    def failure(self, error: TwinferError) -> bytes:
        """What a client is told before the connection breaks."""
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """Work whose answers go out in one response; ``render`` gets them with the latency in milliseconds."""

    work: Work
    render: Callable[[Sequence[Answer], int], Response]


@dataclass(frozen=True, slots=True)
class Streamed:
    """Work whose answers go out as they come; ``headers`` go before them."""

    work: Work
    rendering: StreamRendering
    headers: Mapping[str, str] = field(default_factory=dict)


Outcome: TypeAlias = Response | Plain | Streamed
Operation: TypeAlias = Callable[[Call, Context], Awaitable[Outcome]]
