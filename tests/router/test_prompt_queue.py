"""What a worker still has to compute: as it said, with what it was sent since, less what it did since."""

from hypothesis import given
from hypothesis import strategies as st

from twinfer.core.cost import NO_WORK, Backlog, StepCost, prompt_work
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.core.service import NUM_RANKS
from twinfer.router.prompt_queue import PromptQueue

STEPS = StepCost(0.0, 0.001, 0.0, 0.0, 0.0, chunk_tokens=1000)
"""A thousand positions a second."""
LAST = NUM_RANKS - 1


def report(tokens: int, cost: StepCost | None = STEPS, rows: int = 0) -> LoadReport:
    """Of a worker with so much to do."""
    backlog = Backlog(tokens, 0.0)
    return LoadReport(BlockCounts(8, 8, 0, 0), Counters(), backlog=backlog, cost=cost, decode_rows=rows)


def ahead(queue: PromptQueue, now: float) -> Backlog:
    """All of it."""
    return queue.before(now)[-1]


def test_it_drains_from_the_report_on() -> None:
    """At the worker's pace, and not below nothing."""
    queue = PromptQueue()
    queue.reported(report(1000), 5.0)
    assert [Backlog(1000, 0.0), Backlog(750, 0.0), NO_WORK] == [ahead(queue, now) for now in (5.0, 5.25, 9.0)]


def test_a_prompt_drains_from_when_it_was_sent() -> None:
    """Though the report is older."""
    queue = PromptQueue()
    queue.reported(report(0), 0.0)
    queue.sent(prompt_work(0, 500), LAST, 10.0)
    assert Backlog(250, 125_000 / 2) == ahead(queue, 10.25)
    assert prompt_work(0, 500) == queue.unreported


def test_a_report_counts_what_was_sent() -> None:
    """It is not counted twice."""
    queue = PromptQueue()
    queue.sent(prompt_work(0, 500), LAST, 0.0)
    queue.reported(report(400), 0.1)
    assert (Backlog(400, 0.0), NO_WORK) == (ahead(queue, 0.1), queue.unreported)


def test_answers_beside_it_slow_it_down() -> None:
    """Each chunk waits for a step of them."""
    queue, rows = PromptQueue(), StepCost(0.0, 0.001, 0.0, 0.1, 0.0, chunk_tokens=1000)
    queue.reported(report(1000, rows, rows=10), 0.0)
    assert Backlog(500, 0.0) == ahead(queue, 1.0)


def test_without_costs_nothing_is_known_to_drain() -> None:
    """Only what was sent is added."""
    queue = PromptQueue()
    queue.reported(report(100, None), 0.0)
    queue.sent(Backlog(10, 0.0), LAST, 1.0)
    assert Backlog(110, 0.0) == ahead(queue, 50.0)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5000)), max_size=20), st.floats(0, 10))
def test_never_more_than_was_sent(sent: list[tuple[float, int]], later: float) -> None:
    """And never less than nothing, whenever it was sent."""
    queue, now, total = PromptQueue(), 0.0, 100
    queue.reported(report(100), 0.0)
    for pause, tokens in sent:
        now, total = now + pause, total + tokens
        queue.sent(prompt_work(0, tokens), LAST, now)
        assert tokens <= ahead(queue, now).tokens <= total
    assert 0 <= ahead(queue, now + later).tokens <= ahead(queue, now).tokens


def test_better_tiers_come_first() -> None:
    """A new prompt waits for those of its own and better ranks alone, and these are computed first."""
    queue = PromptQueue()
    queue.reported(report(0), 0.0)
    queue.sent(Backlog(1000, 0.0), LAST, 0.0)
    queue.sent(Backlog(1000, 0.0), 0, 0.0)
    assert [Backlog(1000, 0.0)] * LAST + [Backlog(2000, 0.0)] == queue.before(0.0)
    assert [Backlog(500, 0.0)] * LAST + [Backlog(1500, 0.0)] == queue.before(0.5)
    assert [NO_WORK] * LAST + [Backlog(1000, 0.0)] == queue.before(1.0)
