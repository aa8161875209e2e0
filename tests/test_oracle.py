"""The oracle that other tests trust."""

import math

from tests.oracle import Drawn, wrong_text


def answer(*tokens: str, margin: float = 1.0) -> list[Drawn]:
    """Tokens that each beat ``x`` by so much."""
    return [Drawn(token.encode(), ((token.encode(), -0.5), (b"x", -0.5 - margin))) for token in tokens]


def test_same_answers_are_right() -> None:
    """However close the second best was."""
    assert wrong_text(answer("a", "b"), answer("a", "b", margin=0.0), epsilon=0) is None
    assert wrong_text([], []) is None


def test_first_difference_decides() -> None:
    """It is wrong text unless the two best were as good as equal, and both answers took one of them."""
    tie = [*answer("a"), *answer("b", margin=1e-4), *answer("c")]
    assert wrong_text(tie, answer("a", "x", "q")) is None
    assert wrong_text(tie, answer("a", "x", "q"), epsilon=1e-5) == (
        "token 1 is b'x' instead of b'b', by a margin of 1.00e-04 (epsilon 1e-05)"
    )
    assert wrong_text(tie, answer("a", "z")) is not None
    assert wrong_text(tie, answer("q", "b", "c")) is not None


def test_ends_count_as_tokens() -> None:
    """An answer that stops early, or late, is wrong where the margin was clear."""
    tie = [*answer("a"), *answer("b", margin=1e-4)]
    assert wrong_text(tie, answer("a")) is None
    assert wrong_text(answer("a"), tie) is None
    assert wrong_text(answer("a", "b"), answer("a")) == (
        "token 1 is the end instead of b'b', by a margin of 1.00e+00 (epsilon 0.001)"
    )
    assert wrong_text(answer("a"), answer("a", "b")) is not None


def test_unknown_margin_excuses_nothing() -> None:
    """Without two candidates a difference is a difference."""
    assert Drawn(b"a").margin == math.inf
    assert wrong_text([Drawn(b"a")], [Drawn(b"b")]) is not None
