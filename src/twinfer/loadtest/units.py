"""Numbers as people read them."""

from collections.abc import Callable

from twinfer.loadtest.statistics import Estimate


def seconds(value: float) -> str:
    """A time with three digits: ``1.23 s``, ``45.6 ms``, ``78 us``."""
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if value >= unit:
            return f"{value / unit:.3g} {name}" if value / unit < 999.5 else f"{value / unit:,.0f} {name}"
    return f"{value * 1e6:.0f} us" if value > 0 else "0 s"


def percent(value: float) -> str:
    """A share."""
    return f"{value:.1%}"


def interval(found: Estimate, written: Callable[[float], str]) -> str:
    """A number and in brackets where it lies."""
    return f"{written(found.value)} [{span(found, written)}]"


def span(found: Estimate, written: Callable[[float], str]) -> str:
    """Where a number lies: ``81 - 93 ms``."""
    low, high = written(max(0.0, found.low)), written(found.high)
    number, _, unit = low.rpartition(" ")
    return f"{number} - {high}" if number and high.endswith(f" {unit}") else f"{low} - {high}"
