"""Whose turn it is among tiers, and that nobody waits for ever."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from twinfer.core.service import NUM_RANKS
from twinfer.core.turns import PASSES, TurnQueue

RANKS = st.integers(0, NUM_RANKS - 1)
COME, PUT_BACK, LEAVE, TURN = "come", "put back", "leave", "turn"
EVENTS = st.lists(st.tuples(st.sampled_from([COME, COME, COME, PUT_BACK, LEAVE, TURN]), RANKS), max_size=200)


def filled(ranks: Sequence[int]) -> TurnQueue[tuple[int, int]]:
    """Entries that say their rank, and when they came."""
    queue: TurnQueue[tuple[int, int]] = TurnQueue()
    for number, rank in enumerate(ranks):
        queue.append((rank, number), rank)
    return queue


def test_better_ranks_come_first_and_within_one_the_first() -> None:
    """As long as nobody was passed too often."""
    queue = filled([3, 2, 1, 3, 0, 2])
    expected = [(0, 4), (1, 2), (2, 1), (2, 5), (3, 0), (3, 3)]
    assert expected == list(queue)
    assert expected == [queue.take() for _ in range(6)]


def test_the_eldest_is_next_after_so_many_that_passed_it() -> None:
    """Then its rank is as good as any, and afterwards the others' turn again."""
    queue = filled([3, 3, *[0] * 20])
    order = [queue.take()[0] for _ in range(2 * PASSES + 2)]
    assert order == [*[0] * PASSES, 3, *[0] * PASSES, 3]


def test_others_may_pass_the_whole_queue() -> None:
    """What is given to somebody who does not stand here counts as a turn."""
    queue = filled([3, 0])
    for _ in range(PASSES):
        assert not queue.is_overdue
        queue.pass_all()
    assert queue.is_overdue
    assert (0, (3, 0)) == (queue.first_rank, queue.first)


def test_who_gave_way_stands_before_its_rank_and_no_other() -> None:
    """And is no elder than the one behind it."""
    queue = filled([2, 3])
    queue.put_back((3, -1), 3)
    assert [(2, 0), (3, -1), (3, 1)] == [queue.take() for _ in range(3)]


@given(EVENTS)
def test_nobody_starves(events: list[tuple[str, int]]) -> None:
    """Whoever comes, leaves and gives way meanwhile: an entry behind ``n`` has its turn in ``(PASSES + 1)(n + 1)``."""
    queue: TurnQueue[list[int]] = TurnQueue()
    present: list[tuple[list[int], int]] = []
    for kind, rank in [*events, *[(TURN, 0)] * len(events)]:
        if kind in (COME, PUT_BACK):
            item = [0, sum(1 for _ in queue)]
            (queue.append if kind == COME else queue.put_back)(item, rank)
            if kind == PUT_BACK:
                for other, _ in present:
                    other[1] += 1
            present.append((item, rank))
        elif kind == LEAVE and present:
            item, rank = present.pop(rank % len(present))
            queue.remove(item, rank)
        elif kind == TURN and queue:
            expected = queue.first
            assert expected is queue.take()
            present = [entry for entry in present if entry[0] is not expected]
            for waiting, _ in present:
                waiting[0] += 1
                assert waiting[0] < (PASSES + 1) * (waiting[1] + 1)
    assert len(queue) == len(present)


@given(st.lists(RANKS.filter(bool), min_size=1, max_size=50), st.integers(1, 400))
def test_the_best_rank_has_all_turns_but_one_in_so_many(others: list[int], num_turns: int) -> None:
    """However many of other ranks stand there."""
    queue = filled(others)
    best = 0
    for number in range(num_turns):
        queue.append((0, number), 0)
        best += queue.take()[0] == 0
    assert best >= num_turns - -(-num_turns // (PASSES + 1))
