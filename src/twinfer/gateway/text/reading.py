"""One answer's content: tokens in, deltas out, up to a stop string."""

from typing import Protocol

from twinfer.gateway.text.content import Delta, TextDelta
from twinfer.gateway.text.detokenizer import Detokenizer
from twinfer.gateway.text.stop import StopFinder, StopSet


class Reading(Protocol):
    """Reads one answer. Deltas of one kind that lie between two calls of ``take`` are one."""

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the text."""
        ...

    @property
    def done(self) -> bool:
        """Whether nothing more is wanted: the generation may be cancelled, and no token is to be fed."""
        ...

    @property
    def lacks_call(self) -> bool:
        """Whether there should have been a call and was none."""
        ...

    @property
    def num_reasoning_tokens(self) -> int:
        """Tokens so far that were thought, their marks included."""
        ...

    def feed(self, token_id: int) -> None:
        """Read one more token."""
        ...

    def take(self) -> tuple[Delta, ...]:
        """What became certain since the last call."""
        ...

    def finish(self) -> None:
        """No more tokens come: what was held back is certain now; it may yet complete a stop string."""
        ...


class PlainReading:
    """An answer in which everything is text."""

    num_reasoning_tokens = 0
    lacks_call = False

    def __init__(self, detokenizer: Detokenizer, stops: StopSet) -> None:
        self._detokenizer = detokenizer
        self._finder = StopFinder(stops) if stops else None
        self._shown = ""
        self.done = False
        """Whether a stop string ended the text."""

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the text."""
        return None if self._finder is None else self._finder.matched

    def feed(self, token_id: int) -> None:
        """Detokenise, and watch for stop strings."""
        text = self._detokenizer.feed(token_id)
        if self._finder is None:
            self._shown += text
        else:
            self._watch(self._finder, text)

    def take(self) -> tuple[Delta, ...]:
        """New text, if there is any."""
        if not self._shown:
            return ()
        shown, self._shown = self._shown, ""
        return (TextDelta(shown),)

    def finish(self) -> None:
        """Show an incomplete character as U+FFFD, and what only began as a stop string."""
        text = self._detokenizer.finish()
        if self._finder is None:
            self._shown += text
        else:
            self._watch(self._finder, text)
            self._shown += self._finder.finish()

    def _watch(self, finder: StopFinder, text: str) -> None:
        self._shown += finder.feed(text)
        self.done = finder.matched is not None
