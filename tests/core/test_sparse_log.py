"""A log that cannot be flooded."""

from twinfer.core.clock import ManualClock
from twinfer.core.sparse_log import SparseLog


def test_the_first_lines_of_each_period_pass():
    """Then silence, and in the next period the number of those left out."""
    lines: list[str] = []
    clock = ManualClock()
    log = SparseLog(lambda message, *args: lines.append(message % args), max_lines=2, period_s=10.0, clock=clock)
    for number in range(5):
        log("line %d", number)
    assert lines == ["line 0", "line 1"]
    clock.advance(10.0)
    log("line %d", 5)
    assert lines[2:] == ["3 more lines like the following were left out", "line 5"]
    clock.advance(30.0)
    log("line %d", 6)
    assert lines[4:] == ["line 6"]
