"""The matrix product's rate is operations over time."""

import pytest

from twinfer.model.probe import REPEATS, bf16_matmul_rates

pytestmark = pytest.mark.torch


class TickingClock:
    """A quarter of a second passes between two looks at it."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Later each time."""
        self._now += 0.25
        return self._now


def test_operations_over_time() -> None:
    """Two per fused multiply-add, and the first product only warms up."""
    assert [2 * 8**3 / 0.25] * REPEATS == bf16_matmul_rates(TickingClock(), 8)
