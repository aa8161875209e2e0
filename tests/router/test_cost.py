"""What a router believes of a worker: as it last said, and less and less so when nothing new is heard."""

import math

import msgspec
import pytest

from twinfer.core.cost import LinkCost, StepCost
from twinfer.core.ids import WorkerId
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.core.pace import FORGET_S, faded
from twinfer.router.cost import CostBook

WORKER, SOURCE = WorkerId("d"), WorkerId("p")
COST = StepCost(0.01, 0.0001, 0.0, 0.0, 0.0)


def report(steps: int, pace: float = 1.0, prefill_tokens: int = 0, transfers: int = 0) -> LoadReport:
    """A worker after so many steps, its link as slow as itself."""
    cost = StepCost(0.01, 0.0001, 0.0, 0.0, 0.0, pace)
    links = {SOURCE: LinkCost(0.001, 1e-9, pace, transfers)} if transfers else {}
    counters = Counters(steps=steps, prefill_tokens=prefill_tokens)
    return LoadReport(BlockCounts(8, 8, 0, 0), counters, cost=cost, links=links)


def believed(book: CostBook, load: LoadReport, now: float) -> float:
    """The pace."""
    cost = book.cost(WORKER, load, now)
    assert cost is not None
    return cost.pace


def test_a_slow_worker_is_forgiven_when_nothing_is_heard_of_it() -> None:
    """By half in each period, until it is tried again; if it is slow still, that is believed at once."""
    book, slow = CostBook(), report(5, pace=10.0)
    book.reported(WORKER, slow, 0.0)
    assert math.isclose(believed(book, slow, 0.0), 10.0)
    assert abs(believed(book, slow, FORGET_S) - 10.0**0.5) < 1e-9
    assert believed(book, slow, 5 * FORGET_S) < 1.1
    again = report(6, pace=10.0)
    book.reported(WORKER, again, 5 * FORGET_S)
    assert math.isclose(believed(book, again, 5 * FORGET_S), 10.0)


def test_links_are_forgiven_alike() -> None:
    """Each by its own age."""
    book, slow = CostBook(), report(5, pace=10.0, transfers=3)
    book.reported(WORKER, slow, 0.0)
    assert math.isclose(book.links(WORKER, slow, 0.0)[SOURCE].pace, 10.0)
    book.reported(WORKER, slow, 3.0)
    assert abs(book.links(WORKER, slow, FORGET_S)[SOURCE].pace - 10.0**0.5) < 1e-9
    again = report(5, pace=10.0, transfers=4)
    book.reported(WORKER, again, FORGET_S)
    assert math.isclose(book.links(WORKER, again, FORGET_S)[SOURCE].pace, 10.0)


def test_share_of_prompts_in_a_workers_time() -> None:
    """Half of the time on prompts, for long, is a share of half; idle, it fades."""
    book = CostBook()
    for second in range(100):
        book.reported(WORKER, report(second, prefill_tokens=5000 * second), float(second))
    assert abs(book.prefill_share(WORKER, 99.0) - 0.5) < 0.01
    assert book.prefill_share(WORKER, 199.0) < 0.01


def test_what_steps_hide_takes_no_time() -> None:
    """A chunk of each second is computed in 51 ms, of which a step that decodes anyway hides nine."""
    book, cost = CostBook(), StepCost(0.01, 0.0001, 0.0, 0.0, 0.0, hides=0.9)
    for second in range(100):
        load = report(second, prefill_tokens=512 * second)
        book.reported(WORKER, msgspec.structs.replace(load, cost=cost, decode_rows=1), float(second))
    assert book.prefill_share(WORKER, 99.0) == pytest.approx(0.0512 - 0.009)


def test_another_start_of_a_worker_is_another_worker() -> None:
    """Fewer steps than before say so, and so does its loss."""
    book = CostBook()
    book.reported(WORKER, report(100, prefill_tokens=100), 0.0)
    book.reported(WORKER, report(200, prefill_tokens=100_000), 1.0)
    book.reported(WORKER, report(1), 2.0)
    assert book.prefill_share(WORKER, 2.0) == 0.0
    book.forget(WORKER)
    assert book.prefill_share(WORKER, 2.0) == 0.0


def test_answers_have_a_length() -> None:
    """Which follows those that ended."""
    book = CostBook()
    for _ in range(500):
        book.answered(20)
    assert 16 < book.answers.mean < 24
    assert book.answers.share_shorter(8) < 0.1
    assert book.answers.share_shorter(64) > 0.9


def test_paces_near_one_are_left_alone() -> None:
    """They are no news."""
    assert faded(1.1, 100.0) == 1.1
    assert faded(0.5, 1000.0) > 0.99
