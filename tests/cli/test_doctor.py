"""Each check reports what it finds, and only what serving needs decides the outcome."""

import argparse
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from twinfer.cli import doctor
from twinfer.cli.doctor import Row, Status
from twinfer.core.config import Config
from twinfer.kv.runs import copy_runs_slowly
from twinfer.transport.inproc import InprocHub, InprocSink, InprocSource
from twinfer.transport.tcp import TcpSink, TcpSource

GIB = 1 << 30


@pytest.mark.parametrize(
    ("num_allowed", "quota", "status", "words"),
    [
        (8, None, Status.OK, "8 of"),
        (8, 8.0, Status.OK, "8 of"),
        (8, 1.5, Status.NOTE, "a quota of 1.5"),
        (1, None, Status.NOTE, "share it"),
    ],
)
def test_cores(num_allowed: int, quota: float | None, status: Status, words: str):
    """A quota below the cores that threads would be started for deserves a word."""
    row = doctor.cores(num_allowed, quota)
    assert (status, False) == (row.status, row.needed)
    assert words in row.text


@pytest.mark.parametrize(
    ("available", "status", "words"),
    [(64 * GIB, Status.OK, "64.0 GiB available"), (GIB, Status.NOTE, "kv_mib"), (None, Status.NOTE, "unknown")],
)
def test_memory(available: int | None, status: Status, words: str):
    """Too little for the default pools says which key to lower."""
    row = doctor.memory(available, Config())
    assert status == row.status
    assert words in row.text


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (["fpu", "avx2", "avx512f", "amx_bf16"], Status.OK, "amx_bf16, avx512f, avx2"),
        (["fp", "asimd", "bf16"], Status.OK, "bf16"),
        (["fpu", "avx2"], Status.NOTE, 'weights = "fp32"'),
        ([], Status.NOTE, "none of those"),
        (None, Status.NOTE, "unknown"),
    ],
)
def test_cpu_features(flags: list[str] | None, status: Status, words: str):
    """Those that matter are named; without bf16 it says what to serve instead."""
    row = doctor.cpu_features(flags)
    assert status == row.status
    assert words in row.text


def a_torch(num_cuda: int, mps: bool) -> SimpleNamespace:
    """As much of torch as the checks look at."""
    return SimpleNamespace(
        __version__="9.9",
        get_num_threads=lambda: 4,
        cuda=SimpleNamespace(device_count=lambda: num_cuda, get_device_name=lambda index: f"Card {index}"),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        version=SimpleNamespace(cuda="13.0"),
    )


@pytest.mark.parametrize(
    ("torch", "status", "words"),
    [
        (a_torch(2, False), Status.NOTE, "cuda:0 Card 0, cuda:1 Card 1"),
        (a_torch(0, True), Status.NOTE, "mps"),
        (a_torch(0, False), Status.NO, "on the CPU"),
        (ImportError("No module named 'torch'"), Status.NO, "unknown without torch"),
    ],
)
def test_accelerators(torch: object, status: Status, words: str):
    """Every device by the name that a pool would use."""
    row = doctor.accelerators(torch)
    assert (status, False) == (row.status, row.needed)
    assert words in row.text


def test_torch_and_native_engine():
    """What is missing is named, with the way to install it; only the engine is needed."""
    missing = ImportError("No module named 'torch'")
    assert Row("torch", Status.OK, "9.9, 4 threads by default") == doctor.torch_library(a_torch(0, False))
    assert "pip install 'twinfer[native]'" in doctor.torch_library(missing).text
    assert (doctor.native_engine(missing).status, doctor.native_engine(missing).needed) == (Status.NO, True)
    assert doctor.native_engine(doctor).status == Status.OK


def test_parts_in_c():
    """A note and no failure where there was no compiler."""
    assert doctor.c_parts(None).status == Status.NOTE
    assert "install a C compiler" in doctor.c_parts(None).text
    assert doctor.c_parts(copy_runs_slowly).status == Status.OK


@pytest.mark.parametrize(
    ("isa", "status", "words"),
    [
        ("AMX", Status.OK, "AMX and AVX-512"),
        ("AVX512", Status.OK, "AVX-512 with bf16"),
        ("PORTABLE", Status.NOTE, "plain C for int8 and int4"),
        (None, Status.NOTE, "install a C compiler"),
    ],
)
def test_kernels(isa: str | None, status: Status, words: str):
    """What multiplies is named; where that is slow, so is what to install."""
    machine = SimpleNamespace(isa=SimpleNamespace(name=isa))
    module = SimpleNamespace(find_kernels=lambda threads: machine if isa else None)
    row = doctor.kernels(module)
    assert status == row.status
    assert words in row.text
    assert doctor.kernels(ImportError("no torch")).status == Status.NO


def test_transport_really_pulls():
    """A block goes through; a source that cannot start gives its own reason."""
    hub = InprocHub()
    assert doctor.transport("a way", "works", InprocSource(hub), InprocSink(hub)).status == Status.OK
    with socket.create_server(("127.0.0.1", 0)) as taken:
        row = doctor.transport("TCP", "", TcpSource(port=taken.getsockname()[1]), TcpSink())
    assert (row.status, row.needed) == (Status.NO, True)
    assert "choose port 0" in row.text


def test_port():
    """A taken one says how to take another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        row = doctor.port("127.0.0.1", number)
    assert (Status.NO, True, f"port {number}") == (row.status, row.needed, row.name)
    assert "--port 0" in row.text
    assert doctor.port("127.0.0.1", 0).status == Status.OK


def test_cache(tmp_path: Path):
    """A directory that is not there yet is judged by its parent, and none is made."""
    wanted = tmp_path / "a" / "b"
    row = doctor.cache(wanted)
    assert row.text.startswith(f"{wanted}, ")
    assert not wanted.exists()
    (tmp_path / "file").touch()
    row = doctor.cache(tmp_path / "file" / "cache")
    assert (row.status, row.needed) == (Status.NO, True)
    assert "TWINFER_CACHE" in row.text


def test_demo_model():
    """The bundled model is whole."""
    assert doctor.demo_model().status == Status.OK


def always(row: Row) -> Callable[[Config], list[Callable[[], Row]]]:
    """Checks of which there is one, with this result."""
    return lambda config: [lambda: row]


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        (Row("[x]", Status.OK, "pip install 'a[b]'", needed=True), 0, "works here"),
        (Row("[x]", Status.NOTE, "pip install 'a[b]'", needed=True), 0, "works here"),
        (Row("[x]", Status.NO, "pip install 'a[b]'"), 0, "works here"),
        (Row("[x]", Status.NO, "pip install 'a[b]'", needed=True), 1, "see [x]."),
    ],
)
def test_run(row: Row, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The exit code follows what serving needs; brackets are shown as they are."""
    monkeypatch.setattr(doctor, "checks", always(row))
    assert code == doctor.run(argparse.Namespace())
    shown = capsys.readouterr().out
    assert "[x]" in shown.splitlines()[0]
    assert "pip install 'a[b]'" in shown
    assert words in shown


@pytest.mark.torch
def test_all_checks_here(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On the machine that runs the tests every check gives a row, and with a free port serving would work."""
    pytest.importorskip("torch")
    monkeypatch.setenv("TWINFER_CACHE", str(tmp_path))
    config = msgspec.structs.replace(Config(), gateway=msgspec.structs.replace(Config().gateway, port=0))
    rows = [check() for check in doctor.checks(config)]
    assert len(rows) == len({row.name for row in rows})
    assert [row for row in rows if row.needed and row.status is Status.NO] == []
