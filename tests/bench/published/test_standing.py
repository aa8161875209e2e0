"""Goodput, the choice of the better row, and who is ahead."""

from pathlib import Path

import pytest
from bench.published.cells import Cell, Manner
from bench.published.outcome import interactive, outcome
from bench.published.standing import Duel, Entry, Standing, best, overall

from tests.bench.published import made
from tests.bench.published.made import Role
from twinfer.loadtest.result import Result

CHAT = made.workload("chat")


def run(
    folder: Path, name: str, good: int, *, role: Role = "peer", precision: str = "bf16", slower: float = 1.0
) -> Entry:
    """A system with so many good requests of 60."""
    system = made.system(name, role, precision)
    result = made.measured(Cell(system, CHAT), folder, [made.trial(good, 10.0, slower)])
    return Entry(system, outcome(result, CHAT.interactive))


def test_goodput(tmp_path: Path) -> None:
    """Good requests over the time in which all were offered, not over the time until the last answer."""
    found = run(tmp_path, "one", 45).outcome
    assert 45 / made.SECONDS == pytest.approx(found.goodput.value)
    assert found.goodput.low < found.goodput.value < found.goodput.high <= 60 / made.SECONDS
    assert (60, 15, 0.75) == (found.requests, found.errors, found.attained)


def test_a_search(tmp_path: Path) -> None:
    """The highest rate that held, up to the lowest that did not; the times are those at that rate."""
    trials = [made.trial(60, 8.0), made.trial(10, 16.0), made.trial(58, 11.0)]

    def found(best_rate: float | None) -> Result:
        return made.measured(Cell(made.system("one"), CHAT), tmp_path, trials, best_rate)

    goodput = outcome(found(11.0), CHAT.interactive).goodput
    assert (11.0, 11.0, 16.0) == (goodput.value, goodput.low, goodput.high)
    assert 58 / 60 == pytest.approx(outcome(found(11.0), CHAT.interactive).attained)
    assert 0.0 == outcome(found(None), CHAT.interactive).goodput.value


def test_the_better_of_two(tmp_path: Path) -> None:
    """More goodput wins; at the same goodput the answers that are read faster."""
    weak, strong = run(tmp_path, "a", 30), run(tmp_path, "b", 50)
    slow, fast = run(tmp_path, "c", 40, slower=1.1), run(tmp_path, "d", 40)
    assert strong == best([weak, strong])
    assert fast == best([slow, fast, weak])
    assert best([]) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "ratio"),
    [
        (60, 20, "ahead", 3.0),
        (20, 60, "behind", 1 / 3),
        (60, 60, "level", 1.0),
        (50, 48, "level", 50 / 48),
        (0, 0, "level", 1.0),
    ],
)
def test_a_duel(ours: int, theirs: int, verdict: str, ratio: float, tmp_path: Path) -> None:
    """Ahead or behind only where the intervals are apart."""
    duel = Duel(CHAT, "bf16", run(tmp_path, "a", ours, role="routed"), run(tmp_path, "b", theirs))
    assert (verdict, pytest.approx(ratio)) == (duel.verdict, duel.ratio)


def test_faster_answers(tmp_path: Path) -> None:
    """Two systems that keep what is stated alike differ where answers have to be faster, and the faster one wins."""
    slow, fast = run(tmp_path, "a", 50, slower=2.5), run(tmp_path, "b", 50, role="routed")
    duels = Standing([Cell(one.system, CHAT) for one in (slow, fast)], Manner(), tmp_path).duels
    assert ["level"] == [one.verdict for one in duels("bf16")]
    assert ["ahead"] == [one.verdict for one in duels("bf16", interactive)]
    assert fast == best([slow, fast], interactive)
    assert fast.outcome.interactive == fast.outcome.goodput
    assert slow.outcome.interactive is not None
    assert slow.outcome.interactive.value < slow.outcome.goodput.value


def test_a_search_says_nothing_of_faster_answers(tmp_path: Path) -> None:
    """The rate was searched for with the stated objectives; others would have found another one."""
    ours, theirs = made.system("a", "routed"), made.system("b")
    for system in (ours, theirs):
        made.measured(Cell(system, CHAT), tmp_path, [made.trial(60, 8.0), made.trial(58, 11.0)], 11.0)
    standing = Standing([Cell(ours, CHAT), Cell(theirs, CHAT)], Manner(search=True), tmp_path)
    assert (1, 0) == (len(standing.duels("bf16")), len(standing.duels("bf16", interactive)))


def test_against_nothing(tmp_path: Path) -> None:
    """A peer that keeps the objectives for nobody gives no ratio, and no mean."""
    duel = Duel(CHAT, "bf16", run(tmp_path, "a", 30, role="routed"), run(tmp_path, "b", 0))
    assert (float("inf"), "ahead") == (duel.ratio, duel.verdict)
    assert overall([duel]) is None


def test_the_mean(tmp_path: Path) -> None:
    """Twice as good and half as good is as good."""
    one, other = run(tmp_path, "a", 60, role="routed"), run(tmp_path, "b", 30)
    there, back = Duel(CHAT, "bf16", one, other), Duel(CHAT, "bf16", other, one)
    assert pytest.approx(1.0) == overall([there, back])
    assert pytest.approx(2.0) == overall([there])
    assert overall([]) is None


def test_equals_meet(tmp_path: Path) -> None:
    """Rows meet the best peer of their precision, pools of two precisions that of the better one."""
    entries = [
        run(tmp_path, "apart", 30, role="disaggregated"),
        run(tmp_path, "one", 40, role="aggregated"),
        run(tmp_path, "two", 50, role="aggregated"),
        run(tmp_path, "special", 60, role="specialised", precision="bf16 + int8"),
        run(tmp_path, "eight", 20, role="aggregated", precision="int8"),
        run(tmp_path, "vllm", 35),
        run(tmp_path, "llama", 25),
        run(tmp_path, "llama8", 55, precision="int8"),
    ]
    standing = Standing([Cell(one.system, CHAT) for one in entries], Manner(), tmp_path)
    chosen = standing.chosen(CHAT, "bf16", "aggregated")
    assert chosen is not None
    assert "two" == chosen.system.name
    pairs = {(one.ours.system.name, one.theirs.system.name) for one in standing.duels("bf16")}
    assert {("two", "vllm")} == pairs
    assert [("special", "vllm")] == [(d.ours.system.name, d.theirs.system.name) for d in standing.duels("bf16 + int8")]
    assert [("eight", "llama8")] == [(d.ours.system.name, d.theirs.system.name) for d in standing.duels("int8")]
    assert [] == standing.duels("int4")
