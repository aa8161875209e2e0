"""Rule R7 of the handoff protocol: when two greedy answers to one prompt may differ, and when that is wrong text.

Two paths through the cluster compute the same numbers in another order, so their logits differ in the last bits. A
first difference is allowed where the two best logits lie closer together than ``epsilon`` and each answer took one of
them; from there on the answers have different pasts and may part. In fp32, alone on its workers, ``epsilon`` is 0.
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


def wrong_text(expected: Sequence[Drawn], actual: Sequence[Drawn], epsilon: float = EPSILON) -> str | None:
    """Why ``actual`` is wrong, in words; ``None`` when it is the same answer by rule R7."""
    index = next(
        (
            index
            for index, (ours, theirs) in enumerate(zip(expected, actual, strict=False))
            if ours.token != theirs.token
        ),
        min(len(expected), len(actual)),
    )
    if index == len(expected) == len(actual):
        return None
    place = expected[index] if index < len(expected) else actual[index]
    candidates = {token for token, _ in place.best}
    taken = {answer[index].token for answer in (expected, actual) if index < len(answer)}
    if place.margin < epsilon and taken <= candidates:
        return None
    said = [repr(answer[index].token) if index < len(answer) else "the end" for answer in (expected, actual)]
    return f"token {index} is {said[1]} instead of {said[0]}, by a margin of {place.margin:.2e} (epsilon {epsilon:g})"
