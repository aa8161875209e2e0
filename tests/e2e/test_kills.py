"""A dozen kills under load; ``python -m tests.kills`` is the whole of it."""

from pathlib import Path

import pytest

from tests.kills.run import kill_under_load

NUM_KILLS = 12


@pytest.mark.timeout(300)
def test_kills_under_load(place: Path) -> None:
    """No wrong text, nobody stuck, nothing held for the dead, and no answer lost but by the gateway's own death."""
    code, result = kill_under_load(place, NUM_KILLS, seed=0, prompts=8)
    assert (code, result["findings"], result["bad"]) == (0, [], [])
    assert {row["target"]: row["events"] for row in result["rows"] if row["events"]} == {
        "prefill": 4,
        "decode": 4,
        "gateway": 4,
    }
    total = result["total"]
    assert total["right"] + total["right by R7"] > NUM_KILLS
    assert total["broken"] == sum(row["broken"] for row in result["rows"] if row["target"] == "gateway") > 0
    assert result["handed_over"] > 0
