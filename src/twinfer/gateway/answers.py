"""The answers to one call while they are generated: tokens in, pieces of text out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType

from twinfer.core.errors import WorkerLost
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import FinishReason, Token
from twinfer.gateway.base import Generation, Journey
from twinfer.gateway.text.stream import TextStream


class Ending(StrEnum):
    """Why an answer ended, before a dialect gives it its own word."""

    END_OF_TURN = "end_of_turn"
    MAX_TOKENS = "max_tokens"
    STOP_STRING = "stop_string"
    CONTEXT_FULL = "context_full"


_ENDINGS = {
    FinishReason.STOP: Ending.END_OF_TURN,
    FinishReason.LENGTH: Ending.MAX_TOKENS,
    FinishReason.CONTEXT: Ending.CONTEXT_FULL,
}


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new of one answer.

    Attributes:
        choice: whose it is.
        tokens: the tokens with their log probabilities; empty unless the request asked for these.
        ending: set on the answer's last piece.
    """

    choice: int
    text: str
    tokens: tuple[Token, ...] = ()
    ending: Ending | None = None


class Answer:
    """One choice: its generation, and what has come of it.

    Args:
        fills_context: the length limit is what the context has left, so reaching it means that the context is full.
    """

    def __init__(
        self, request: GenerationRequest, generation: Generation, text: TextStream, fills_context: bool
    ) -> None:
        self.request = request
        self.generation = generation
        self.num_tokens = 0
        self.ending: Ending | None = None
        self._text = text
        self._fills_context = fills_context
        self._shown: list[str] = []
        self._tokens: list[Token] = []

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self._shown)

    @property
    def tokens(self) -> Sequence[Token]:
        """All that were text, a stop string's included, if the request asked for log probabilities."""
        return self._tokens

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended it."""
        return self._text.stopped

    @property
    def num_cached(self) -> int:
        """Prompt tokens found in a cache. A recovery's prompt includes earlier output, which does not count."""
        return min(self.journey().cached_tokens, len(self.request.prompt))

    def journey(self) -> Journey:
        """What became of the request; complete when ``ending`` is set."""
        return self.generation.journey()

    def absorb(self, batch: Sequence[Token]) -> Piece:
        """Take in new tokens; those after a stop string do not count. The last piece comes from ``finish``."""
        shown, tokens = [], []
        for token in batch:
            if self.stop_string is not None:
                break
            self.num_tokens += 1
            self.ending = None if token.finish is None else _ENDINGS[token.finish]
            if self.ending is Ending.END_OF_TURN:
                break
            shown.append(self._text.feed(token.token_id))
            if self.request.top_logprobs is not None:
                tokens.append(token)
        return self._piece("".join(shown), tuple(tokens), None)

    def finish(self) -> Piece:
        """The last piece: text that was held back, and why it ended.

        Raises:
            WorkerLost: no token said that it was the last.
        """
        text = self._text.finish()
        if self.stop_string is not None:
            self.ending = Ending.STOP_STRING
        elif self.ending is None:
            raise WorkerLost("The answer broke off before its last token; send the request again.")
        elif self.ending is Ending.MAX_TOKENS and self._fills_context:
            self.ending = Ending.CONTEXT_FULL
        return self._piece(text, (), self.ending)

    def _piece(self, text: str, tokens: tuple[Token, ...], ending: Ending | None) -> Piece:
        self._shown.append(text)
        self._tokens.extend(tokens)
        return Piece(self.request.choice, text, tokens, ending)


class Answers:
    """All choices of one call, read side by side.

    Leaving the context stops the reading; who started the generations closes them.
    """

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.all = tuple(answers)
        self._pending: list[Piece] = []
        self._changed = asyncio.Event()
        self._pumps: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Answers":
        self._pumps = [asyncio.create_task(self._pump(answer)) for answer in self.all]
        for pump in self._pumps:
            pump.add_done_callback(lambda _: self._changed.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def take(self) -> tuple[Piece, ...]:
        """All pieces since the last call, as soon as there are any; none when all answers are complete.

        May be cancelled and called again without losing anything.

        Raises:
            TwinferError: a generation failed; what came before it was taken earlier.
        """
        while not self._pending:
            for pump in self._pumps:
                if pump.done():
                    pump.result()
            if all(pump.done() for pump in self._pumps):
                return ()
            self._changed.clear()
            await self._changed.wait()
        taken, self._pending = tuple(self._pending), []
        return taken

    async def complete(self) -> None:
        """Wait for the end of all of them.

        Raises:
            TwinferError: a generation failed.
        """
        while await self.take():
            pass

    async def _pump(self, answer: Answer) -> None:
        """Read one generation to its end, or to a stop string, which the workers do not know of."""
        async for batch in answer.generation:
            self._publish(answer.absorb(batch))
            if answer.stop_string is not None:
                await answer.generation.aclose()
                break
        self._publish(answer.finish())

    def _publish(self, piece: Piece) -> None:
        self._pending.append(piece)
        self._changed.set()
