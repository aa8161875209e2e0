"""A dispatcher without a cluster: it plays scripts. For tests of dialects and of anything that speaks HTTP."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from twinfer.core.errors import TwinferError
from twinfer.core.ids import ModelId, WorkerId
from twinfer.core.request import GenerationRequest
from twinfer.core.route import Route, RouteKind
from twinfer.core.tokens import FinishReason, Logprob, Token
from twinfer.gateway.arrivals import Arrivals
from twinfer.gateway.base import Journey


@dataclass(frozen=True)
class Script:
    """What happens to one request.

    Attributes:
        batches: token ids, in the batches in which they arrive; cut off at the request's ``max_tokens``.
        finish: of the last token, when ``max_tokens`` does not end it first.
        failure: raised after the last batch, which then does not finish.
        gates: awaited before the batch of that index; ``len(batches)`` is the end.
        cached_tokens: prompt tokens reported as found in a cache.
        route: the mode reported when the request forces none.
    """

    batches: Sequence[Sequence[int]]
    finish: FinishReason = FinishReason.STOP
    failure: TwinferError | None = None
    gates: Mapping[int, asyncio.Event] = field(default_factory=dict)
    cached_tokens: int = 0
    route: RouteKind = RouteKind.DISAGGREGATED


class FakeGeneration:
    """Plays one script for one request."""

    def __init__(self, request: GenerationRequest, script: Script, kind: RouteKind) -> None:
        self.request = request
        self.arrivals = Arrivals()
        self.closed = asyncio.Event()
        """Set when it was closed, at the end or before."""
        self.sent = 0
        self._playing: asyncio.Task[None] | None = None
        self._script = script
        prefill = WorkerId("prefill-0") if kind is RouteKind.DISAGGREGATED else None
        self.route = Route(WorkerId("decode-0"), prefill, "as the script says")

    def begin(self) -> None:
        """Play."""
        self._playing = asyncio.create_task(self._play())

    def close(self) -> None:
        """Note it."""
        if self._playing is not None:
            self._playing.cancel()
        self.closed.set()

    def journey(self) -> Journey:
        """Made up, but adding up."""
        return Journey(
            route=self.route,
            queue_ms=1.0,
            reserve_ms=2.0,
            fetch_ms=0.0,
            prefill_ms=3.0,
            exposed_transfer_ms=4.0,
            decode_ms=5.0,
            cached_tokens=self._script.cached_tokens,
            transfer_bytes=1024 if self.route.prefill else 0,
            pinned_tokens=max((pin.num_tokens for pin in self.request.pins), default=0),
        )

    async def _play(self) -> None:
        script, limit = self._script, self.request.stopping.max_tokens
        for number, batch in enumerate(script.batches):
            await self._gate(number)
            played = batch[: limit - self.sent]
            last = number == len(script.batches) - 1 and len(played) == len(batch) and script.failure is None
            tokens = self._tokens(played, script.finish if last else None, limit)
            if tokens:
                self.arrivals.push(tokens)
            if self.sent == limit:
                return
        await self._gate(len(script.batches))
        if script.failure is not None:
            self.arrivals.fail(script.failure)
        else:
            self.arrivals.end()

    async def _gate(self, number: int) -> None:
        gate = self._script.gates.get(number)
        if gate is not None:
            await gate.wait()

    def _tokens(self, ids: Sequence[int], finish: FinishReason | None, limit: int) -> tuple[Token, ...]:
        tokens = []
        for position, token_id in enumerate(ids):
            end = finish if position == len(ids) - 1 else None
            if end is None and self.sent == limit - 1:
                end = FinishReason.LENGTH
            tokens.append(self._token(token_id, end))
            self.sent += 1
        return tuple(tokens)

    def _token(self, token_id: int, finish: FinishReason | None) -> Token:
        wanted = self.request.top_logprobs
        if wanted is None:
            return Token(self.request.request_id, self.sent, token_id, finish=finish)
        top = tuple(Logprob(token_id + rank, -0.5 - rank) for rank in range(wanted))
        return Token(self.request.request_id, self.sent, token_id, -0.5, top, finish)


class FakeDispatcher:
    """Plays a script for every request.

    Args:
        script: chosen for each request.
    """

    def __init__(self, script: Callable[[GenerationRequest], Script]) -> None:
        self.script = script
        self.generations: list[FakeGeneration] = []
        """All that were started, in order."""
        self.forced: list[RouteKind | None] = []
        self.fast: set[ModelId] = set()
        """Models with a pool for low latency."""
        self.foreseen_s: float | None = None
        """When first tokens are to be expected."""
        self.reason: str | None = None
        """Why it is not ready."""

    def start(self, request: GenerationRequest, forced: RouteKind | None) -> FakeGeneration:
        """Begin to play."""
        script = self.script(request)
        generation = FakeGeneration(request, script, forced or script.route)
        generation.begin()
        self.generations.append(generation)
        self.forced.append(forced)
        return generation

    def optimizes(self, model: ModelId) -> bool:
        """Whether it was told so."""
        return model in self.fast

    def foresee(self, request: GenerationRequest, forced: RouteKind | None) -> float | None:
        """What it was told."""
        return self.foreseen_s

    def unready(self) -> str | None:
        """What it was told to say."""
        return self.reason

    async def metrics(self) -> str:
        """One series."""
        return "# TYPE fake_workers gauge\nfake_workers 2\n"
