"""Where an axis has its ticks: at round values, about five of them."""

import math

ENOUGH, MANY = 3, 8
_STEPS: tuple[tuple[float, ...], ...] = ((1,), (1, 2, 5), (1, 2, 3, 5, 7), tuple(range(1, 10)))
"""Within a decade, from few to many."""


def log_ticks(low: float, high: float) -> list[float]:
    """Of a logarithmic axis: the fewest that are enough; within less than a decade those of an even one may be more.

    Args:
        low, high: its ends, above 0.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in _STEPS:
        ticks = [step * 10.0**power for power in powers for step in steps]
        within = [tick for tick in ticks if low <= tick <= high]
        if len(within) >= ENOUGH:
            return within if len(within) <= MANY else within[:: math.ceil(len(within) / MANY)]
        found = within
    even = even_ticks(low, high)
    return even if len(even) > len(found) else found


def even_ticks(low: float, high: float, unit: float = 1.0) -> list[float]:
    """Of an even axis: 1, 2 or 5 times a power of ten apart, times a unit such as 60 for minutes."""
    raw = (high - low) / 5 or 1.0
    unit *= 10 ** math.floor(math.log10(raw / unit))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step * 1.0001) + 1)]
