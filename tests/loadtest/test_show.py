"""What a terminal shows: how it goes, and what it all comes to."""

import io

import pytest
from rich.console import Console

from tests.loadtest.made import failed, records, result, trial
from twinfer.loadtest.arrivals import LoadSpec
from twinfer.loadtest.runner import Progress
from twinfer.loadtest.show import Show, result_lines
from twinfer.loadtest.statistics import Estimate
from twinfer.loadtest.units import interval, percent, seconds


def test_live():
    """On a terminal the latest numbers, elsewhere nothing until a load is over."""
    for terminal in (True, False):
        out = io.StringIO()
        with Show(Console(file=out, force_terminal=terminal, width=100)) as show:
            show.looked(LoadSpec(rate=3.0), Progress(records(20, 1), in_flight=7, planned_s=10.0), 4.0)
            shown = out.getvalue()
            assert terminal == ("in flight" in shown)
            assert terminal == ("3 requests/s, Poisson" in shown)
            show.ended(trial(records(20, 1)))
        assert "20 requests, 0 errors" in out.getvalue()


def test_errors_and_validity_are_said():
    """Each kind with the first message, and in capitals that the numbers do not count."""
    some = records(20, 1)
    failed(some[0])
    console = Console(file=io.StringIO(), record=True, width=200)
    for line in result_lines(result([trial(some, invalid="too late")])):
        console.print(line)
    shown = console.export_text()
    assert "1 x refused: HTTP 429: too many" in shown
    assert "INVALID: too late" in shown
    assert "routes: aggregated 19" in shown


@pytest.mark.parametrize(
    ("value", "written"), [(0.0, "0 s"), (2e-5, "20 us"), (0.0123, "12.3 ms"), (1.5, "1.5 s"), (1234.0, "1,234 s")]
)
def test_seconds(value: float, written: str):
    """In the unit that fits."""
    assert written == seconds(value)


def test_intervals():
    """The unit is said once where both ends have the same."""
    assert "12 ms [11 - 13 ms]" == interval(Estimate(0.012, 0.011, 0.013), seconds)
    assert "1 s [900 ms - 1.1 s]" == interval(Estimate(1.0, 0.9, 1.1), seconds)
    assert "50.0% [0.0% - 60.0%]" == interval(Estimate(0.5, -0.1, 0.6), percent)
