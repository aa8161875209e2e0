"""The comparison with measured runs takes the rows it understands, and says by how much each group is off."""

import csv
from pathlib import Path

import pytest
from tools.validate_devices import errors, main

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement, Work
from twinfer.devices.step_time import step_seconds

ROW = {
    "model_path": "meta-llama/Llama-3.1-70B",
    "system": "b200_sxm",
    "backend": "trtllm",
    "precision": "fp8",
    "mode": "agg",
    "isl": "8192",
    "osl": "1024",
    "concurrency": "4",
    "tp_size": "2",
    "pp_size": "1",
    "attention_dp_size": "1",
    "moe_ep_size": "1",
    "silicon_tpot_ms": "10.9",
}


def test_a_row() -> None:
    """A step of all, and three prompts of others for every answer."""
    device, shape, placement = Catalogue().device("b200")[0], load_shape("llama-3.1-70b"), Placement(2, 2, "fp8")
    step = step_seconds(device, shape, placement, [Work(1, 8704)] * 4)
    prompt = step_seconds(device, shape, placement, [Work(8192, 0)])
    ((group, error),) = errors([ROW])
    assert ("b200", "llama-3.1-70b", "fp8", "trtllm") == group
    assert (step + 3 * prompt / 1024) / 10.9e-3 - 1 == pytest.approx(error)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "disagg"},
        {"system": "b300_sxm"},
        {"model_path": "deepseek-ai/DeepSeek-R1"},
        {"concurrency": ""},
        {"concurrency": "128"},
        {"moe_ep_size": "2"},
        {"concurrency": "64", "tp_size": "1", "isl": "131072"},
    ],
)
def test_what_cannot_be_compared_is_left_out(changes: dict[str, str]) -> None:
    """Other kinds of runs, and what would not fit."""
    assert [] == list(errors([ROW | changes]))


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line per group and device, and one for all."""
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROW))
        writer.writeheader()
        writer.writerows([ROW, ROW | {"tp_size": "4"}])
    assert 0 == main([str(path)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["b200", "llama-3.1-70b", "fp8", "trtllm", "2"] == lines[1][:5]
    assert [["b200", "2"], ["all", "2"]] == [line[:2] for line in lines[2:]]
    assert 2 == main([])
