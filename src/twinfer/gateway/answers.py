"""The answers to one call while they are generated: tokens in, pieces of content out."""

import asyncio
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from twinfer.core.errors import WorkerLost
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import FinishReason, Token
from twinfer.gateway.arrivals import BROKE_OFF
from twinfer.gateway.base import Generation, Journey
from twinfer.gateway.text.content import Block, Delta, TextBlock, TextDelta, ToolCallStart, join_deltas
from twinfer.gateway.text.reading import Reading
from twinfer.usage.record import Tokens


class Ending(StrEnum):
    """Why an answer ended, before a dialect gives it its own word."""

    END_OF_TURN = "end_of_turn"
    MAX_TOKENS = "max_tokens"
    STOP_STRING = "stop_string"
    CONTEXT_FULL = "context_full"
    TOOL_CALLS = "tool_calls"
    """The turn is over, and tools are to be called before the next."""
    BROKEN_CALL = "broken_call"
    """A call was forced and what came is none, or a call was shown while it was written and broke."""


_ENDINGS = {
    FinishReason.STOP: Ending.END_OF_TURN,
    FinishReason.LENGTH: Ending.MAX_TOKENS,
    FinishReason.CONTEXT: Ending.CONTEXT_FULL,
}


class Piece(msgspec.Struct, frozen=True, gc=False):
    """What is new of one answer; a struct because there is one for every token.

    Attributes:
        choice: whose it is.
        num_tokens: of the answer, up to here.
        tokens: the tokens with their log probabilities; empty unless the request asked for these.
        ending: set on the answer's last piece.
    """

    choice: int
    deltas: tuple[Delta, ...]
    num_tokens: int
    tokens: tuple[Token, ...] = ()
    ending: Ending | None = None


def join_text(pieces: Sequence[Piece]) -> str:
    """The text in them, without reasoning and calls."""
    return "".join(delta.text for piece in pieces for delta in piece.deltas if isinstance(delta, TextDelta))


class Answer:
    """One choice: its generation, and what has come of it.

    Args:
        fills_context: the length limit is what the context has left, so reaching it means that the context is full.
    """

    def __init__(
        self, request: GenerationRequest, generation: Generation, reading: Reading, fills_context: bool
    ) -> None:
        self.request = request
        self.generation = generation
        self.num_tokens = 0
        self.ending: Ending | None = None
        self._reading = reading
        self.whole = False
        """Whether all of its pieces were read."""
        self._fills_context = fills_context
        self._deltas: list[Delta] = []
        self._tokens: list[Token] = []

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All of its content so far."""
        return join_deltas(self._deltas)

    @property
    def text(self) -> str:
        """All of its text so far, without reasoning and calls."""
        return "".join(block.text for block in self.blocks if isinstance(block, TextBlock))

    @property
    def num_reasoning_tokens(self) -> int:
        """Of ``num_tokens``, those that were thought."""
        return self._reading.num_reasoning_tokens

    @property
    def tokens(self) -> Sequence[Token]:
        """All that were text, a stop string's included, if the request asked for log probabilities."""
        return self._tokens

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended it."""
        return self._reading.stopped

    @property
    def done(self) -> bool:
        """Whether no more tokens are wanted: a stop string came, or the only call that was asked for."""
        return self._reading.done

    @property
    def num_cached(self) -> int:
        """Prompt tokens found in a cache. A recovery's prompt includes earlier output, which does not count."""
        return min(self.journey().cached_tokens, len(self.request.prompt))

    @property
    def tokens_used(self) -> Tokens:
        """What it used, its prompt included."""
        cached, written = self.num_cached, sum(self.cache_writes.values())
        return Tokens(len(self.request.prompt) - cached - written, cached, written, self.num_tokens)

    @property
    def cache_writes(self) -> dict[float, int]:
        """Prompt tokens computed and pinned at its cache points: how many for each time to live, in seconds."""
        pinned, written = min(self.journey().pinned_tokens, len(self.request.prompt)), dict[float, int]()
        begin = self.num_cached
        for pin in self.request.pins:
            end = min(pin.num_tokens, pinned)
            if end > begin:
                written[pin.ttl_s] = written.get(pin.ttl_s, 0) + end - begin
                begin = end
        return written

    def journey(self) -> Journey:
        """What became of the request; complete when ``ending`` is set."""
        return self.generation.journey()

    def read(self) -> list[Piece]:
        """What became of the tokens that arrived; as soon as no more are wanted the generation is closed."""
        batch = self.generation.arrivals.take()
        if not batch or self.whole:
            return []
        piece = self.absorb(batch)
        self.whole = self.done or batch[-1].finish is not None
        if self.done:
            self.generation.close()
        return [piece, self.finish()] if self.whole else [piece]

    def absorb(self, batch: Sequence[Token]) -> Piece:
        """Take in new tokens; those that are not wanted any more do not count. The last piece comes from ``finish``."""
        tokens, reading, wants_tokens = [], self._reading, self.request.top_logprobs is not None
        for token in batch:
            if reading.done:
                break
            self.num_tokens += 1
            if token.finish is not None:
                self.ending = _ENDINGS[token.finish]
                if self.ending is Ending.END_OF_TURN:
                    break
            reading.feed(token.token_id)
            if wants_tokens:
                tokens.append(token)
        return self._piece(tuple(tokens))

    def finish(self) -> Piece:
        """The last piece: what was held back, and why it ended.

        Raises:
            WorkerLost: no token said that it was the last.
        """
        self._reading.finish()
        piece = self._piece(())
        self.ending = self._why()
        return msgspec.structs.replace(piece, ending=self.ending)

    def _why(self) -> Ending:
        if self.stop_string is not None:
            return Ending.STOP_STRING
        if self.done and not self._reading.lacks_call:
            return Ending.TOOL_CALLS
        if self.ending is None and not self.done:
            raise WorkerLost(BROKE_OFF)
        if self.ending is Ending.MAX_TOKENS and self._fills_context:
            return Ending.CONTEXT_FULL
        if self.ending in (Ending.MAX_TOKENS, Ending.CONTEXT_FULL):
            return self.ending
        if self._reading.lacks_call:
            return Ending.BROKEN_CALL
        called = any(isinstance(delta, ToolCallStart) for delta in self._deltas)
        return Ending.TOOL_CALLS if called else Ending.END_OF_TURN

    def _piece(self, tokens: tuple[Token, ...]) -> Piece:
        deltas = self._reading.take()
        self._deltas += deltas
        self._tokens += tokens
        return Piece(self.request.choice, deltas, self.num_tokens, tokens)


class Answers:
    """All choices of one call, read side by side. Who started the generations closes them."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.all = tuple(answers)
        self._news = asyncio.Event()
        for answer in self.all:
            answer.generation.arrivals.listen(self._news.set)

    async def take(self) -> tuple[Piece, ...]:
        """All pieces since the last call, as soon as there are any; none when all answers are complete.

        May be cancelled and called again without losing anything.

        Raises:
            TwinferError: a generation failed; what came before it was taken earlier.
        """
        while True:
            if self._news.is_set():
                self._news.clear()
                if pieces := [piece for answer in self.all for piece in answer.read()]:
                    return tuple(pieces)
            unread = [answer for answer in self.all if not answer.whole]
            if not unread:
                return ()
            for answer in unread:
                if answer.generation.arrivals.error is not None:
                    raise answer.generation.arrivals.error
            await self._news.wait()

    async def complete(self) -> None:
        """Wait for the end of all of them.

        Raises:
            TwinferError: a generation failed.
        """
        while await self.take():
            pass
