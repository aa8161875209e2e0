"""Cells that were measured are found again, and only by the command that measured them."""

from pathlib import Path

import msgspec
import pytest
from bench.published.campaign import forget
from bench.published.catalogue import SYSTEMS, at_fixed_rates, in_full
from bench.published.cells import Cell, Manner, failure, failure_path, measured, options
from bench.published.schedule import CELL_S, Turn, cell_seconds, spoken, turns

from tests.bench.published import made
from twinfer.cli import parser
from twinfer.loadtest.bench import INTERRUPTED
from twinfer.loadtest.result import save

CELL = Cell(made.system("one"), made.workload("chat"))


def test_done(tmp_path: Path) -> None:
    """A cell is done after its command, wherever the server was; not after another, nor when it was interrupted."""
    command = options(CELL, tmp_path, Manner())
    assert measured(CELL, tmp_path, command) is None
    result = made.measured(CELL, tmp_path, [made.trial(60, 10.0)])
    assert result == measured(CELL, tmp_path, command)
    assert measured(CELL, tmp_path, options(CELL, tmp_path, Manner(stretch=2.0))) is None
    stopped = msgspec.structs.replace(result.trials[0], stopped=INTERRUPTED)
    save(msgspec.structs.replace(result, trials=[stopped]), CELL.path(tmp_path))
    assert measured(CELL, tmp_path, command) is None
    assert measured(CELL, tmp_path) is not None


def test_half_a_file(tmp_path: Path) -> None:
    """A file that was not written to its end is not a result."""
    made.measured(CELL, tmp_path, [made.trial(60, 10.0)])
    path = CELL.path(tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    assert measured(CELL, tmp_path) is None


def test_what_is_left() -> None:
    """Each system has one turn, in order, with all that is left of it."""
    first, second = made.system("a"), made.system("b")
    chat, code = made.workload("chat"), made.workload("code")
    left = [Cell(first, code), Cell(second, chat), Cell(second, code)]
    assert [Turn(first, (code,)), Turn(second, (chat, code))] == turns(left)
    assert [] == turns([])


def test_what_is_measured() -> None:
    """At fixed rates it is a part of all there is, and takes 25 minutes."""
    brief, full = at_fixed_rates(), in_full()
    assert set(brief) < set(full)
    assert "25 min" == spoken(sum(turn.seconds(Manner()) for turn in turns(brief)))


def test_the_time_left() -> None:
    """A system's start and its cells; a search tries several rates."""
    turn = Turn(made.system("a"), (made.workload("chat"), made.workload("code")))
    assert 5.0 + 2 * (made.SECONDS + CELL_S) == turn.seconds(Manner())
    assert cell_seconds(turn.workloads[0], Manner(search=True)) > 5 * made.SECONDS
    assert ["0 min", "25 min", "3 h 05 min"] == [spoken(seconds) for seconds in (10, 1490, 11100)]


def test_failures(tmp_path: Path) -> None:
    """Why a system could not be started is kept, until it is forgotten with all that was measured."""
    assert failure(tmp_path, CELL) is None
    failure_path(tmp_path, CELL.system, CELL.workload).write_text("it answered rubbish\n")
    assert "it answered rubbish" == failure(tmp_path, CELL)
    failure_path(tmp_path, CELL.system).write_text("no such program\n")
    made.measured(CELL, tmp_path, [made.trial(60, 10.0)])
    assert "no such program" == failure(tmp_path, CELL)
    forget([CELL], tmp_path)
    assert failure(tmp_path, CELL) is None
    assert measured(CELL, tmp_path) is None


@pytest.mark.parametrize("search", [False, True])
def test_the_command(search: bool, tmp_path: Path) -> None:
    """Every cell's options are such that ``twinfer bench run`` takes them."""
    for cell in in_full():
        said = options(cell, tmp_path, Manner(search=search))
        asked = parser().parse_args(["bench", "run", "http://127.0.0.1:1", *said])
        goals = cell.workload.objectives
        assert (goals.ttft_s, goals.tpot_s) == (asked.slo_ttft, asked.slo_tpot)
        assert (cell.workload.rate, search, True) == (asked.rate, asked.find_rate, asked.ignore_eos)


def test_names_differ() -> None:
    """No two systems share a file."""
    assert len(SYSTEMS) == len({one.name for one in SYSTEMS})
