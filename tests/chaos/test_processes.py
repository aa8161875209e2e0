"""Signals to real processes: they reach children of the deployment, nobody else, and nothing stays stopped."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from twinfer.chaos.processes import Processes
from twinfer.cluster.deployment import DeploymentRecord, WorkerRecord, write_record
from twinfer.core.config import HandoffConfig
from twinfer.core.errors import WorkerLost
from twinfer.core.ids import ModelId, WorkerId


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for the end of its input."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def processes(path: Path, pid: int, supervisor: int) -> Processes:
    """Of a deployment with one worker of that id."""
    workers = {
        WorkerId("decode-0"): WorkerRecord("decode", "unix:/nowhere"),
        WorkerId("far-0"): WorkerRecord("prefill", "127.0.0.1:1"),
    }
    pids = {"gateway": 0, "decode-0": pid}
    record = DeploymentRecord("", supervisor, pids, workers, (ModelId("m"),), HandoffConfig(), "00" * 16)
    write_record(path / "record", record)
    return Processes(path / "record", record)


def wait_state(pid: int, wanted: str) -> None:
    """Return when the kernel says so; the test's own time limit ends a wait in vain."""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in wanted:
        os.sched_yield()


def test_targets_are_what_was_started_here(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    """By role; workers started elsewhere are left alone."""
    assert processes(tmp_path, child.pid, os.getpid()).targets == {"decode": ["decode-0"], "gateway": ["gateway"]}


def test_what_is_stopped_goes_on(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    """Also when asked twice."""
    found = processes(tmp_path, child.pid, os.getpid())
    found.stop("decode-0")
    wait_state(child.pid, "T")
    found.resume()
    found.resume()
    wait_state(child.pid, "SR")
    assert child.communicate(b"\n", timeout=60) == (None, None)


def test_a_new_id_is_noticed(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    """A restarted process is another one."""
    found = processes(tmp_path, 0, os.getpid())
    assert not found.is_up("decode-0")
    write_record(tmp_path / "record", msgspec.structs.replace(found.record, pids={"decode-0": child.pid}))
    assert found.is_up("decode-0")
    found.kill("decode-0")
    assert child.wait(60) == -9
    with pytest.raises(WorkerLost, match="decode-0 does not run"):
        found.kill("decode-0")


def test_nobody_else_is_touched(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    """A process that is not the deployment's child is not the one that the description means."""
    found = processes(tmp_path, child.pid, supervisor=1)
    for strike in (found.kill, found.stop):
        with pytest.raises(WorkerLost, match="decode-0 does not run"):
            strike("decode-0")
    found.resume()
    with contextlib.suppress(subprocess.TimeoutExpired):
        assert child.wait(0.05) is None
