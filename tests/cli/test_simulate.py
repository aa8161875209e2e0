"""``twinfer simulate`` from the command line: what it writes, and how it refuses."""

import json
from pathlib import Path

import pytest

from twinfer.cli import main

ROW = '{{"timestamp": {at}, "input_length": 1500, "output_length": 20, "hash_ids": [0, {at}, 9]}}\n'


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten requests, one in a tenth of a second, and no profiles measured."""
    monkeypatch.setenv("TWINFER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(ROW.format(at=100 * number) for number in range(10)), encoding="utf-8")
    return path


PAIR = ["--prefill", "trn3", "--decode", "cs3"]


def test_table_json_and_page(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All three at once, of the same numbers, twice the same."""
    outputs = [tmp_path / "a.json", tmp_path / "b.json"]
    for output in outputs:
        page = output.with_suffix(".html")
        options = ["--slo-ttft", "5", "--prefill-workers", "2", "--json", str(output), "--html", str(page)]
        assert 0 == main(["simulate", "--trace", str(trace), *PAIR, *options])
        assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    first, second = (output.read_bytes() for output in outputs)
    assert first == second
    found = json.loads(first)
    assert ({"ok": 10}, 5.0, 3) == (found["outcomes"], found["slo"]["ttft_s"], len(found["workers"]))
    assert ["trn3", "cs3"] == [pool["hardware"].split()[2] for pool in found["pools"]]
    assert "10 ok" in capsys.readouterr().out


def test_a_configuration(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole topology from a file, one worker of which fails."""
    config = tmp_path / "twinfer.toml"
    config.write_text(
        '[[model]]\nid = "m"\n[[pool]]\nname = "all"\nrole = "both"\nengine = "emulated"\nworkers = 2\n'
        'kv_mib = 64\nemulation = {device = "h100", devices = 1, model_shape = "qwen3-8b"}\n',
        encoding="utf-8",
    )
    options = ["--limit", "6", "--rate-scale", "2", "--fail", "all-1@0.1s+1s"]
    assert 0 == main(["simulate", "--trace", str(trace), "--config", str(config), *options])
    assert "6 ok" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PAIR[:2], "give both --prefill and --decode"),
        ([], "give --prefill and --decode, or --config"),
        (["--prefill", "trn9", "--decode", "cs3"], "there is no device or link 'trn9'"),
        ([*PAIR, "--decode-link", "efa"], "there is no device or link 'efa'"),
        ([*PAIR, "--decode-link", "cs3"], "cs3 is a device, no link"),
        ([*PAIR, "--fail", "x"], "--fail 'x' is not understood"),
        ([*PAIR, "--fail", "decode-3@1s"], "decode-3"),
        ([*PAIR, "--rate-scale", "0"], "--rate-scale is 0"),
        ([*PAIR, "--message-us", "-1"], "--message-us is -1"),
        ([*PAIR, "--html", "/nowhere/at/all.html"], "there is no directory /nowhere/at"),
        (
            [*PAIR, "--set", "pool.decode.engine=native", "--set", "pool.decode.weights=fp32"],
            "pool decode: times of fp32 weights are not known",
        ),
        ([*PAIR, "--model-shape", "deepseek-v3", "--set", "pool.decode.emulation.devices=2"], "it would on"),
    ],
)
def test_refusals(trace: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, exit code 2."""
    assert 2 == main(["simulate", "--trace", str(trace), *options])
    said = capsys.readouterr().err
    assert message in said
    assert 1 == len(said.splitlines())


def test_a_bad_trace(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File, line and field, exit code 2."""
    trace.write_text(trace.read_text(encoding="utf-8") + ROW.format(at=-5), encoding="utf-8")
    assert 2 == main(["simulate", "--trace", str(trace), *PAIR])
    assert f"{trace}, line 11: hash_ids" in capsys.readouterr().err
