"""``twinfer devices`` lists, shows and measures, and says how well everything is known."""

import json
from pathlib import Path

import pytest

from twinfer.cli import main
from twinfer.devices import measure
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.model_config import SHAPES, shape_names
from twinfer.devices.profile import values


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory of its own, in which nothing was measured yet."""
    monkeypatch.setenv("TWINFER_CACHE", str(tmp_path))
    return tmp_path


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    """Each device and link in one line with its worst tag; nothing is cut off."""
    assert 0 == main(["devices"])
    lines = {words[0]: words for line in capsys.readouterr().out.splitlines() if (words := line.split())}
    assert ["cs3", "pipeline_sram", "44", "GB", "21", "PB/s", "15.6", "PFLOP/s", "41.96", "estimate"] == lines["cs3"]
    assert ["cs3-inlet", "150", "GB/s", "127.5", "GB/s", "50", "us", "estimate"] == lines["cs3-inlet"]
    assert [] == [entry.name for entry in Catalogue().entries if entry.name not in lines]


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The same for programs."""
    assert 0 == main(["devices", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert list(shape_names()) == listed["shapes"]
    found = next(device for device in listed["devices"] if device["name"] == "trn2")
    assert ("roofline", 667e12, 2.24, "estimate") == (
        found["kind"],
        found["bf16_flops"],
        found["price_per_hour"],
        found["worst"],
    )


def test_a_device_with_all_that_is_said_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Every number with its tag, and the doubts in full."""
    assert 0 == main(["devices", "show", "CS3"])
    shown = capsys.readouterr().out
    entry = Catalogue().entry("cs3")
    assert [] == [named.name for named in values(entry) if named.name not in shown]
    assert [] == [doubt for doubt in entry.doubts if doubt not in shown]
    assert "Nobody outside the two vendors can write KV into a CS-3 today" in shown
    assert "Worst quality of these numbers: estimate." in shown


def test_a_device_as_json_is_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    """All five keys of every number."""
    assert 0 == main(["devices", "show", "trn3-ultraserver-gen1", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert ("group", "trn3") == (shown["class"], shown["of"])
    assert {"value", "low", "high", "quality", "source"} == set(shown["devices"])


def test_a_group_leads_to_its_device(capsys: pytest.CaptureFixture[str]) -> None:
    """The figures are those of one chip."""
    assert 0 == main(["devices", "show", "trn3-ultraserver-gen2"])
    assert "`twinfer devices show trn3` has the figures of one" in capsys.readouterr().out


def test_a_shape(capsys: pytest.CaptureFixture[str]) -> None:
    """What a model costs, by name or by path."""
    assert 0 == main(["devices", "show", "gpt-oss-120b"])
    by_name = capsys.readouterr().out
    for words in ("18 of them with a window of 128 tokens", "116.8 B, 5.13 B active", "65.17 GB (as published)"):
        assert words in by_name
    assert 0 == main(["devices", "show", str(SHAPES / "gpt-oss-120b.json")])
    assert by_name == capsys.readouterr().out
    assert 0 == main(["devices", "show", "deepseek-v3", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert (61, 512) == (shown["num_layers"], shown["latent"]["kv_rank"])


@pytest.mark.parametrize(
    ("name", "advice"),
    [("cs-3", "did you mean cs3?"), ("gpt-oss", "did you mean gpt-oss-"), ("zzz", "known are a10, b200")],
)
def test_unknown_names(name: str, advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one sentence, the near names."""
    assert 2 == main(["devices", "show", name])
    shown = capsys.readouterr().err
    assert f"twinfer: there is no device, link or model shape '{name}'; " in shown
    assert advice in shown
    assert 1 == len(shown.splitlines())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of a few megabytes, so that a measurement takes no time worth mentioning."""
    for function in ("read_rates", "copy_rates", "tcp_rates"):
        original = getattr(measure, function)
        shortened = {
            "read_rates": lambda clock, threads, run=original: run(clock, threads, 1 << 22),
            "copy_rates": lambda clock, run=original: run(clock, 1 << 22),
            "tcp_rates": lambda clock, run=original: run(clock, 1 << 22),
        }[function]
        monkeypatch.setattr(f"twinfer.cli.measure_device.{function}", shortened)


@pytest.mark.usefixtures("small")
def test_measuring_this_machine(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without ``--write`` nothing is kept; with it there is a device ``this``, and links beside it."""
    assert 0 == main(["devices", "measure"])
    shown = capsys.readouterr().out
    assert "reading memory, all cores" in shown
    assert "Nothing was written" in shown
    assert not (cache / "devices").exists()
    assert 0 == main(["devices", "measure", "--write"])
    assert "this.toml, this-shm.toml, this-tcp.toml" in capsys.readouterr().out
    assert 0 == main(["devices", "show", "this"])
    assert "measured" in capsys.readouterr().out


@pytest.mark.torch
@pytest.mark.usefixtures("small")
def test_steps_of_a_model(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are timed, the device is fitted to them, and then the simulator knows native pools."""
    assert 0 == main(["devices", "measure", "--model", "demo", "--weights", "bf16", "--write"])
    assert "Fitted to 27 timed steps of demo" in capsys.readouterr().out
    device = Catalogue((cache / "devices",)).device("this")[0]
    assert "timed steps of demo in bf16" in device.bf16_flops.source
    trace = cache / "trace.csv"
    trace.write_text("timestamp_s,input_tokens,output_tokens\n0,100,9\n1,70,20\n")
    bf16 = [part for pool in ("prefill", "decode") for part in ("--set", f"pool.{pool}.weights=bf16")]
    config = cache / "twinfer.toml"
    config.write_text("")
    assert 0 == main(["simulate", "--trace", str(trace), "--config", str(config), *bf16])
    assert "each 1 x this with demo in bf16" in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_without_torch_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Numpy's FP32 stands in, under its own name."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 0 == main(["devices", "measure"])
    assert "FP32 in numpy, for torch is not installed: a floor for BF16" in capsys.readouterr().out
