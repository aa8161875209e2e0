"""What one answer is worth, beside the answer to the same prompt that was served undisturbed. Pure."""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from twinfer.chaos.oracle import EPSILON, Drawn, first_difference


class Ending(StrEnum):
    """How an answer came to its end, as its client saw it."""

    WHOLE = "whole"
    """With the mark that ends a stream."""
    CUT_SHORT = "cut short"
    """The response ended well, but the mark is missing."""
    REFUSED = "refused"
    """By an HTTP status or an error event."""
    BROKEN = "broken"
    """The connection was closed in the middle."""
    STUCK = "stuck"
    """Nothing came for too long."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as the server words it; ``status`` is 200 when it came within a stream."""

    status: int
    code: str
    message: str


@dataclass(slots=True)
class Heard:
    """One answer.

    Attributes:
        drawn: its tokens.
        finish: the finish reason, once there is one.
        usage: prompt and completion tokens, as the server counts them.
        transfer_bytes: KV that was handed over for it, as the server says at the end.
        reason: of a broken connection, in words.
    """

    drawn: list[Drawn] = field(default_factory=list)
    text: str = ""
    finish: str | None = None
    usage: tuple[int, int] | None = None
    transfer_bytes: int = 0
    ending: Ending = Ending.CUT_SHORT
    refusal: Refusal | None = None
    reason: str = ""


class Verdict(StrEnum):
    """What an answer is worth."""

    RIGHT = "right"
    RIGHT_BY_R7 = "right by R7"
    REFUSED = "refused"
    BROKEN = "broken"
    WRONG = "wrong"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and why if it is not simply right."""

    verdict: Verdict
    reason: str = ""


_CODES = ("capacity_exhausted", "model_not_ready", "deadline_exceeded", "worker_lost", "engine_failure")
"""Errors that a cluster under chaos may answer with; anything else says that the request or the gateway is at fault."""
_NAMES_ITS_LEG = ("worker_lost", "engine_failure")


def judge(reference: Heard, heard: Heard, workers: Collection[str], *, gateway_hit: bool) -> Judgement:
    """Compare an answer with the reference.

    Whatever part of it arrived must be the reference's, however it ended.

    Args:
        reference: a whole answer.
        heard: the answer to judge.
        workers: names of which one must be in an error that blames a worker.
        gateway_hit: the gateway was killed or paused meanwhile, so the connection may break.
    """
    difference = first_difference(reference.drawn, heard.drawn, whole=heard.ending is Ending.WHOLE)
    if difference is not None and not difference.allowed(EPSILON):
        return Judgement(Verdict.WRONG, str(difference))
    if difference is None and not reference.text.startswith(heard.text):
        return Judgement(Verdict.WRONG, f"other text of the same tokens: {heard.text!r}")
    if heard.ending is Ending.STUCK:
        return Judgement(Verdict.STUCK, f"nothing more came after token {len(heard.drawn)}")
    if heard.ending is Ending.BROKEN:
        if gateway_hit:
            return Judgement(Verdict.BROKEN, heard.reason)
        return Judgement(Verdict.WRONG, f"the connection broke although nothing befell the gateway: {heard.reason}")
    if heard.refusal is not None:
        return _judge_refusal(heard.refusal, workers)
    if heard.ending is not Ending.WHOLE or heard.finish is None:
        return Judgement(Verdict.WRONG, f"a clean end without the end's mark after token {len(heard.drawn)}")
    if difference is None:
        return _judge_ending(reference, heard)
    shorter = min(reference, heard, key=lambda answer: len(answer.drawn))
    if None in (difference.expected, difference.actual) and shorter.finish != "stop":
        return Judgement(Verdict.WRONG, f"a clean end after a part: {difference}")
    return Judgement(Verdict.RIGHT_BY_R7, str(difference))


def _judge_ending(reference: Heard, heard: Heard) -> Judgement:
    """Of the same tokens."""
    for what in ("text", "finish", "usage"):
        expected, actual = getattr(reference, what), getattr(heard, what)
        if expected != actual:
            return Judgement(Verdict.WRONG, f"the tokens are right, but {what} is {actual!r} instead of {expected!r}")
    return Judgement(Verdict.RIGHT)


def _judge_refusal(refusal: Refusal, workers: Collection[str]) -> Judgement:
    said = f"{refusal.status} {refusal.code}: {refusal.message}"
    if refusal.code not in _CODES or not refusal.message:
        return Judgement(Verdict.WRONG, f"an error that does not fit what happened: {said}")
    if refusal.code in _NAMES_ITS_LEG and not any(worker in refusal.message for worker in workers):
        return Judgement(Verdict.WRONG, f"an error that does not name the leg that failed: {said}")
    return Judgement(Verdict.REFUSED, said)
