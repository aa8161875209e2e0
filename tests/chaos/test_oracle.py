"""Rule R7: what is the same answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.answers import CLEAR, TIE, drawn
from twinfer.chaos.oracle import EPSILON, Drawn, first_difference, wrong_text

LETTERS = st.text(alphabet="abc", max_size=12)


@given(letters=LETTERS, cut=st.integers(0, 12))
def test_a_part_differs_only_from_a_whole(letters: str, cut: int) -> None:
    """What arrived of an answer is right as far as it goes; a clean end there is not."""
    reference, part = drawn(letters), drawn(letters[:cut])
    assert first_difference(reference, part, whole=False) is None
    assert (first_difference(reference, part) is None) == (cut >= len(letters))


@given(first=LETTERS, second=LETTERS)
def test_with_clear_margins_only_equal_answers_are_right(first: str, second: str) -> None:
    """No difference is excused."""
    assert (wrong_text(drawn(first), drawn(second)) is None) == (first == second)


def test_equal_answers_are_right_at_any_epsilon() -> None:
    """However close the second best was."""
    assert wrong_text(drawn("ab", 0.0), drawn("ab"), epsilon=0) is None
    assert wrong_text([], []) is None


def test_a_tie_may_be_broken_either_way() -> None:
    """Both tokens were as good, and what follows has another past."""
    reference = [*drawn("a"), *drawn("b", TIE, rival="x"), *drawn("cde")]
    assert wrong_text(reference, drawn("axyz")) is None


def test_a_tie_excuses_nobody_else() -> None:
    """A third token is wrong however close the first two were."""
    reference = [*drawn("a"), *drawn("b", TIE, rival="x")]
    assert wrong_text(reference, drawn("ac")) == (
        "token 1 is b'c' instead of b'b', by a margin of 1.00e-04 (epsilon 0.001)"
    )


def test_the_margin_that_counts_is_the_reference_s() -> None:
    """A wrong answer cannot excuse itself by being unsure."""
    assert wrong_text(drawn("ab", CLEAR), [*drawn("a"), *drawn("x", TIE, rival="b")]) is not None


@pytest.mark.parametrize(("margin", "allowed"), [(EPSILON * 0.99, True), (EPSILON * 1.01, False)])
def test_epsilon_is_the_bound(margin: float, allowed: bool) -> None:
    """Below it is rounding, from it on is wrong."""
    found = first_difference(drawn("b", margin, rival="x"), drawn("x"))
    assert found is not None
    assert found.allowed() == allowed


def test_without_alternatives_nothing_is_a_tie() -> None:
    """An engine that reports one candidate is sure of it."""
    assert wrong_text([Drawn(b"a", ((b"a", 0.0),))], [Drawn(b"b", ((b"b", 0.0),))]) is not None
    assert wrong_text([Drawn(b"a")], [Drawn(b"b")]) is not None


def test_an_end_counts_as_a_token() -> None:
    """One that comes early or late is said so."""
    assert wrong_text(drawn("ab"), drawn("a")) == (
        "token 1 is the end instead of b'b', by a margin of 1.00e+00 (epsilon 0.001)"
    )
    assert "token 1 is b'b' instead of the end" in str(wrong_text(drawn("a"), drawn("ab")))
