"""An order that roles are to stay, as it stands in a roster."""

from pathlib import Path

from twinfer.cluster.registry import read_registry
from twinfer.cluster.standstill import end_standstill, order_standstill, standing_order


def test_an_order(tmp_path: Path) -> None:
    """It stands there until it is taken back, once more or not, and no worker is meant by it."""
    seen = [standing_order(tmp_path)]
    for number in (1, 2):
        order_standstill(tmp_path, number)
        seen.append(standing_order(tmp_path))
    assert {} == read_registry(tmp_path, encrypted=False)
    for _ in range(2):
        end_standstill(tmp_path)
    assert [0, 1, 2, 0] == [*seen, standing_order(tmp_path)]
