"""Who gives up its blocks for others, pure. It keeps what it drew, and goes on later as if nothing had happened."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from twinfer.core.service import Tier
from twinfer.engine.sequence import Purpose, TokenSequence

MAX_YIELDS = 2
"""So often a sequence gives way for its tier: each time costs the computing of its tokens once more."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Room that a handoff waits for."""

    num_blocks: int
    tier: Tier


def last_to_stay(running: Sequence[TokenSequence]) -> TokenSequence | None:
    """Whose blocks a decoding sequence is given that finds none: the youngest of the last tier, if any may give way."""
    return max(reversed(_idle(running)), key=_standing, default=None)


def make_way(
    running: Sequence[TokenSequence], num_holders: Callable[[int], int], num_blocks: int, num_places: int
) -> list[TokenSequence]:
    """Those that give way for an urgent request, the youngest first; nobody where all of them are not enough.

    Args:
        num_holders: of a block: one that others hold, too, frees nothing before all of them let go of it.
        num_blocks: that are missing.
        num_places: that are missing among those that run.
    """
    victims: list[TokenSequence] = []
    let_go = Counter[int]()
    for sequence in reversed(_idle(running)):
        if num_blocks <= 0 and num_places <= 0:
            break
        if yields(sequence):
            victims.append(sequence)
            let_go.update(sequence.held_blocks)
            num_blocks -= sum(let_go[block] == num_holders(block) for block in sequence.held_blocks)
            num_places -= 1
    return victims if num_blocks <= 0 and num_places <= 0 else []


def num_freed(sequences: Iterable[TokenSequence], num_holders: Callable[[int], int]) -> int:
    """Blocks that nobody holds any more once all of these let go of theirs."""
    let_go = Counter(block for sequence in sequences for block in sequence.held_blocks)
    return sum(count == num_holders(block) for block, count in let_go.items())


def yields(sequence: TokenSequence) -> bool:
    """Whether it gives up its blocks for an urgent request, when no step computes it."""
    return sequence.request.tier.gives_way and sequence.num_yields < MAX_YIELDS and sequence.purpose is Purpose.ANSWER


def _idle(running: Sequence[TokenSequence]) -> list[TokenSequence]:
    """Those that are not in the step that is planned, and whose blocks nobody else reads."""
    return [one for one in running if one.purpose is Purpose.ANSWER and not one.in_flight]


def _standing(sequence: TokenSequence) -> int:
    return sequence.rank if sequence.num_yields < MAX_YIELDS else 0
