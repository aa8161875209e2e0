"""Each measurement really moves its bytes, and gives one rate for each repetition."""

from collections.abc import Callable

import pytest

from twinfer.core.clock import Clock
from twinfer.devices.measure import REPEATS, copy_rates, matmul_rates, read_rates, tcp_rates

MIB = 1 << 20


class TickingClock:
    """Half a second passes between two looks at it."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Later each time."""
        self._now += 0.5
        return self._now


@pytest.mark.parametrize(
    ("rates", "amount"),
    [
        (lambda clock: read_rates(clock, 2, 4 * MIB), 4 * MIB),
        (lambda clock: copy_rates(clock, 4 * MIB), 4 * MIB),
        (lambda clock: tcp_rates(clock, 4 * MIB), 4 * MIB),
        (lambda clock: matmul_rates(clock, 16), 2 * 16**3),
    ],
    ids=["read", "copy", "tcp", "matmul"],
)
def test_amount_over_time(rates: Callable[[Clock], list[float]], amount: int) -> None:
    """The rate is what was moved over what the clock says."""
    assert [amount / 0.5] * REPEATS == rates(TickingClock())
