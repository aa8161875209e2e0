"""Answers as a client hears them, made from letters."""

from twinfer.chaos.judge import Ending, Heard
from twinfer.chaos.oracle import Drawn

CLEAR = 1.0
TIE = 1e-4


def drawn(letters: str, margin: float = CLEAR, rival: str = "?") -> list[Drawn]:
    """A token for each letter, which beats its rival by so much."""
    return [Drawn(letter.encode(), ((letter.encode(), -0.1), (rival.encode(), -0.1 - margin))) for letter in letters]


def whole(letters: str, tokens: list[Drawn] | None = None, finish: str = "length") -> Heard:
    """A complete answer."""
    tokens = drawn(letters) if tokens is None else tokens
    return Heard(tokens, letters, finish, (3, len(tokens)), ending=Ending.WHOLE)
