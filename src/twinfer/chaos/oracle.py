"""Rule R7 of the handoff protocol: when two greedy answers to one prompt may differ, and when that is wrong text.

Two paths through the cluster compute the same numbers in another order, so their logits differ in the last bits. A
first difference is allowed where the reference's two best logits lie closer together than ``epsilon`` and each answer
took one of them; from there on the answers have different pasts and may part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

EPSILON = 1e-3
"""For fp32 steps that batch other sequences in another way: natural logarithms, so 0.1 % in probability."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One token of an answer.

    Attributes:
        token: what identifies it, such as its bytes.
        best: the most likely tokens at this place with their log probabilities, best first; two of them.
    """

    token: bytes
    best: tuple[tuple[bytes, float], ...] = ()

    @property
    def margin(self) -> float:
        """By how much the best token beats the next one."""
        return self.best[0][1] - self.best[1][1] if len(self.best) > 1 else float("inf")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two answers part.

    Attributes:
        index: of the token.
        expected: the reference's token; ``None`` where it ends.
        actual: the other answer's; ``None`` where it ends.
        place: the two best tokens there.
    """

    index: int
    expected: bytes | None
    actual: bytes | None
    place: Drawn

    def allowed(self, epsilon: float = EPSILON) -> bool:
        """Whether it is a tie that either answer may break its own way."""
        taken = {token for token in (self.expected, self.actual) if token is not None}
        return self.place.margin < epsilon and taken <= {token for token, _ in self.place.best}

    def __str__(self) -> str:
        said = ["the end" if token is None else repr(token) for token in (self.actual, self.expected)]
        return f"token {self.index} is {said[0]} instead of {said[1]}, by a margin of {self.place.margin:.2e}"


def first_difference(reference: Sequence[Drawn], heard: Sequence[Drawn], *, whole: bool = True) -> Difference | None:
    """Where the answers part; ``None`` if nowhere.

    Args:
        reference: the undisturbed answer.
        heard: the other one.
        whole: whether that one is complete; a part of the reference is no difference otherwise.
    """
    for index, (ours, theirs) in enumerate(zip(reference, heard, strict=False)):
        if ours.token != theirs.token:
            return Difference(index, ours.token, theirs.token, ours)
    end = min(len(reference), len(heard))
    if end < len(heard):
        return Difference(end, None, heard[end].token, heard[end])
    if whole and end < len(reference):
        return Difference(end, reference[end].token, None, reference[end])
    return None


def wrong_text(reference: Sequence[Drawn], heard: Sequence[Drawn], epsilon: float = EPSILON) -> str | None:
    """Why a complete answer is wrong, in words; ``None`` when it is the same answer by rule R7."""
    difference = first_difference(reference, heard)
    return None if difference is None or difference.allowed(epsilon) else f"{difference} (epsilon {epsilon:g})"
