"""An order that roles are to stay, as it stands in a roster."""

from pathlib import Path

from twinfer.cluster.registry import read_registry
from twinfer.cluster.standstill import Order, end_standstill, order_standstill, standing_order
from twinfer.core.ids import WorkerId


def test_an_order(tmp_path: Path) -> None:
    """It stands there until it is taken back, once more or not, and no worker is meant by it."""
    seen = [standing_order(tmp_path)]
    orders = [Order(number, (WorkerId("decode-0"),)) for number in (1, 2)]
    for order in orders:
        order_standstill(tmp_path, order)
        seen.append(standing_order(tmp_path))
    assert {} == read_registry(tmp_path, encrypted=False)
    for _ in range(2):
        end_standstill(tmp_path)
    assert [None, *orders, None] == [*seen, standing_order(tmp_path)]
