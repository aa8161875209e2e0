"""Tokens of one request between whoever receives them and the one who reads them."""

from collections.abc import Callable, Sequence

from twinfer.core.errors import TwinferError, WorkerLost
from twinfer.core.tokens import Token

BROKE_OFF = "The answer broke off before its last token; send the request again."


class Arrivals:
    """What has arrived and was not taken yet. The event loop's, like everything in a gateway.

    Attributes:
        error: why no more tokens come; those that came before it may still be taken.
    """

    def __init__(self) -> None:
        self.error: TwinferError | None = None
        self._tokens: list[Token] = []
        self._news: Callable[[], None] | None = None

    def listen(self, news: Callable[[], None]) -> None:
        """Call this whenever something has arrived, and now if something has."""
        self._news = news
        if self._tokens or self.error is not None:
            news()

    def push(self, tokens: Sequence[Token]) -> None:
        """More tokens, in index order; the last one of all carries ``finish``."""
        self._tokens += tokens
        self._tell()

    def fail(self, error: TwinferError) -> None:
        """No more tokens come."""
        self.error = error
        self._tell()

    def end(self) -> None:
        """No more tokens come; if none of them was the last, the answer is not whole."""
        self.fail(WorkerLost(BROKE_OFF))

    def take(self) -> Sequence[Token]:
        """All that arrived since the last time."""
        tokens, self._tokens = self._tokens, []
        return tokens

    def _tell(self) -> None:
        if self._news is not None:
            self._news()
