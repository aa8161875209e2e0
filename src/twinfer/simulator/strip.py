"""Amounts over time, in bins of equal width: what a worker was busy, or held, or how much was asked."""

import math


class Strip:
    """Grows with time.

    Args:
        bin_s: width of a bin.
    """

    def __init__(self, bin_s: float) -> None:
        self.bin_s = bin_s
        self.sums: list[float] = []
        self.total = 0.0

    def add(self, start: float, end: float, rate: float = 1.0) -> None:
        """Something held at that rate for that time: each bin gets rate times its part of the time."""
        if end <= start or not rate:
            return
        self.total += rate * (end - start)
        first, last = int(start / self.bin_s), math.ceil(end / self.bin_s) - 1
        if last >= len(self.sums):
            self.sums += [0.0] * (last + 1 - len(self.sums))
        if first >= last:
            self.sums[last] += rate * (end - start)
            return
        self.sums[first] += rate * ((first + 1) * self.bin_s - start)
        for index in range(first + 1, last):
            self.sums[index] += rate * self.bin_s
        self.sums[last] += rate * (end - last * self.bin_s)

    def means_over(self, duration_s: float, num_bins: int) -> list[float]:
        """The mean rate in each of so many equal parts of the time from 0 to ``duration_s``."""
        width = duration_s / num_bins
        parts = Strip(width) if width else None
        for index, amount in enumerate(self.sums):
            start, end = index * self.bin_s, min((index + 1) * self.bin_s, duration_s)
            if parts is not None and amount and start < end:
                parts.add(start, end, amount / (end - start))
        sums = [] if parts is None else parts.sums[:num_bins]
        return [amount / width for amount in sums] + [0.0] * (num_bins - len(sums))
