"""What one request was and what came of it: the row that everything else is computed from."""

from enum import StrEnum

import msgspec


class ErrorKind(StrEnum):
    """What stood in the place of a whole answer."""

    UNREACHABLE = "unreachable"
    """No connection."""
    REFUSED = "refused"
    """An HTTP status other than 200."""
    FAILED = "failed"
    """An error inside the stream."""
    BROKEN = "broken"
    """The connection ended before the answer did."""
    RUBBISH = "rubbish"
    """What came is no answer of this API."""
    EMPTY = "empty"
    """An answer without any text."""
    TIMEOUT = "timeout"
    """No end within the time allowed."""


class Record(msgspec.Struct, omit_defaults=True):
    """One request. Moments are seconds of the run's clock, on which the run begins at 0.

    Args:
        session, turn: whose request this was, and its place among the session's, from 0.
        due_s: when it was to be sent.
        sent_s: when it began: its bytes went out, or, without an open connection, connecting began.
        lag_s: how late it began.
        connect_s: what connecting took, a part of the time to the first token.
        warmup: it came before the measurement and counts for nothing.
        arrivals_us: moments at which text came, in microseconds after ``sent_s``; text that one read of the socket
            brought is one arrival.
        pieces: events with text.
        end_s: when the answer was over.
        characters: length of the text.
        prompt_tokens, output_tokens: as the server says; ``None`` where it does not.
        finish: why the answer ended, in the server's words.
        route: the way the server says the request went; "" where it does not.
        error, message: what went wrong; "" if nothing did.
    """

    session: int
    turn: int
    due_s: float
    sent_s: float
    lag_s: float = 0.0
    connect_s: float = 0.0
    warmup: bool = False
    arrivals_us: list[int] = []
    pieces: int = 0
    end_s: float = 0.0
    characters: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    finish: str = ""
    route: str = ""
    error: ErrorKind | None = None
    message: str = ""

    @property
    def ttft_s(self) -> float | None:
        """From the beginning to the first text."""
        return self.arrivals_us[0] * 1e-6 if self.arrivals_us else None

    @property
    def e2e_s(self) -> float:
        """From the beginning to the end of the answer."""
        return self.end_s - self.sent_s

    @property
    def tokens(self) -> int:
        """Of the answer: as the server says, or else the events counted."""
        return self.pieces if self.output_tokens is None else self.output_tokens

    @property
    def tpot_s(self) -> float | None:
        """Time per token after the first: from the first text to the last, over all tokens but one."""
        if self.tokens < 2 or len(self.arrivals_us) < 2:
            return None
        return (self.arrivals_us[-1] - self.arrivals_us[0]) * 1e-6 / (self.tokens - 1)

    def fail(self, error: ErrorKind, message: str) -> None:
        """Note what went wrong, unless something did before."""
        if self.error is None:
            self.error, self.message = error, " ".join(message.split())[:300]
