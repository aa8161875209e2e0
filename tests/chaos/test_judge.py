"""Each way an answer can end, and what it is worth."""

import pytest

from tests.chaos.answers import TIE, drawn, whole
from twinfer.chaos.judge import Ending, Heard, Refusal, Verdict, judge

WORKERS = ("prefill-0", "decode-0")
REFERENCE = whole("abcd")


def verdict(heard: Heard, reference: Heard = REFERENCE, *, gateway_hit: bool = False) -> Verdict:
    """Of the judge."""
    return judge(reference, heard, WORKERS, gateway_hit=gateway_hit).verdict


def part(letters: str, ending: Ending, refusal: Refusal | None = None) -> Heard:
    """What arrived before the end."""
    return Heard(drawn(letters), letters, ending=ending, refusal=refusal)


def test_the_same_answer_is_right() -> None:
    """To the last token, with text, finish reason and usage."""
    assert verdict(whole("abcd")) is Verdict.RIGHT


@pytest.mark.parametrize(
    "heard",
    [
        whole("abxd"),
        whole("abc"),
        whole("abcde"),
        whole("abcd", finish="stop"),
        Heard(drawn("abcd"), "abcD", "length", (3, 4), ending=Ending.WHOLE),
        Heard(drawn("abcd"), "abcd", "length", (3, 5), ending=Ending.WHOLE),
        part("abcd", Ending.CUT_SHORT),
        part("ab", Ending.CUT_SHORT),
        part("", Ending.CUT_SHORT),
        Heard(drawn("abcd"), "abcd", None, (3, 4), ending=Ending.WHOLE),
    ],
)
def test_anything_else_that_ends_well_is_wrong(heard: Heard) -> None:
    """Other text, a part, too much, another reason, another usage, or no mark of the end."""
    assert verdict(heard) is Verdict.WRONG
    assert verdict(heard, gateway_hit=True) is Verdict.WRONG


def test_ties() -> None:
    """Another way from a tie on is right by R7; ending there is not, unless the model ended it."""
    reference = whole("abcd", [*drawn("a"), *drawn("b", TIE, rival="x"), *drawn("cd")])
    assert verdict(whole("axyz"), reference) is Verdict.RIGHT_BY_R7
    assert verdict(whole("azzz"), reference) is Verdict.WRONG
    assert verdict(whole("a"), reference) is Verdict.WRONG
    assert verdict(whole("a", finish="stop"), reference) is Verdict.RIGHT_BY_R7


def test_a_broken_connection_needs_a_gateway_that_was_hit() -> None:
    """Workers may die as they like: the gateway is there to say so."""
    heard = part("ab", Ending.BROKEN)
    assert verdict(heard, gateway_hit=True) is Verdict.BROKEN
    assert verdict(heard, gateway_hit=False) is Verdict.WRONG


@pytest.mark.parametrize("ending", [Ending.BROKEN, Ending.STUCK, Ending.REFUSED])
def test_no_ending_excuses_wrong_tokens(ending: Ending) -> None:
    """What arrived before it must be the reference's."""
    refusal = Refusal(200, "worker_lost", "worker decode-0 was lost") if ending is Ending.REFUSED else None
    assert verdict(part("ax", ending, refusal), gateway_hit=True) is Verdict.WRONG


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (Refusal(503, "capacity_exhausted", "no decode worker is ready"), Verdict.REFUSED),
        (Refusal(200, "worker_lost", "worker decode-0 was lost while it held this request"), Verdict.REFUSED),
        (Refusal(500, "engine_failure", "worker prefill-0: the lease ran out"), Verdict.REFUSED),
        (Refusal(408, "deadline_exceeded", "no answer within 600 s"), Verdict.REFUSED),
        (Refusal(200, "worker_lost", "something was lost"), Verdict.WRONG),
        (Refusal(500, "engine_failure", ""), Verdict.WRONG),
        (Refusal(500, "internal_error", "Internal error in request 1."), Verdict.WRONG),
        (Refusal(400, "context_length_exceeded", "too long"), Verdict.WRONG),
        (Refusal(502, "", "<html>"), Verdict.WRONG),
    ],
)
def test_a_refusal_must_be_clear(refusal: Refusal, expected: Verdict) -> None:
    """It says what failed, and it is something that can fail in a cluster."""
    assert verdict(part("ab", Ending.REFUSED, refusal)) is expected


def test_silence_is_stuck() -> None:
    """Also after a right beginning."""
    assert verdict(part("ab", Ending.STUCK)) is Verdict.STUCK
