"""One answer's text: tokens in, text deltas out, up to a stop string."""

from twinfer.gateway.text.detokenizer import Detokenizer
from twinfer.gateway.text.stop import StopFinder, StopSet


class TextStream:
    """Detokenises and watches for stop strings."""

    def __init__(self, detokenizer: Detokenizer, stops: StopSet) -> None:
        self._detokenizer = detokenizer
        self._finder = StopFinder(stops)

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the text."""
        return self._finder.matched

    def feed(self, token_id: int) -> str:
        """The text to show because of this token."""
        return self._finder.feed(self._detokenizer.feed(token_id))

    def finish(self) -> str:
        """The text still held back, when no more tokens come; it may yet complete a stop string."""
        return self._finder.feed(self._detokenizer.finish()) + self._finder.finish()
