"""How a running deployment is found: by its port, by its owner, and only while it runs."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from twinfer.cluster.deployment import (
    ORDERS,
    RECORD,
    ROSTER,
    DeploymentRecord,
    WorkerRecord,
    directory_prefix,
    find_record,
    is_running,
    private_directory,
    read_record,
    remove_traces,
    sweep,
    write_record,
)
from twinfer.core.config import HandoffConfig
from twinfer.core.errors import ConfigError
from twinfer.core.ids import ModelId, WorkerId

PORT = 8000


def a_record(supervisor: int) -> DeploymentRecord:
    """Of a deployment with one worker."""
    workers = {WorkerId("decode-0"): WorkerRecord("decode", "unix:/nowhere")}
    url = f"http://127.0.0.1:{PORT}"
    return DeploymentRecord(url, supervisor, {"gateway": 1}, workers, (ModelId("m"),), HandoffConfig(), "00" * 16)


@pytest.fixture(autouse=True)
def _own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployments of this test only."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def deployed(supervisor: int, port: int = PORT) -> Path:
    """Its description, in its private directory."""
    path = Path(tempfile.mkdtemp(prefix=directory_prefix(port))) / RECORD
    write_record(path, a_record(supervisor))
    return path


@pytest.fixture
def ended() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_is_written_is_found_by_port() -> None:
    """Among others, and with its content."""
    deployed(os.getpid(), 80)
    path = deployed(os.getpid())
    deployed(os.getpid(), 80001)
    assert find_record(PORT) == path
    assert read_record(path) == a_record(os.getpid())


def test_only_the_owner_can_read_it() -> None:
    """It holds the cluster key; also after it was replaced, and nothing else is left beside it."""
    path = deployed(os.getpid())
    write_record(path, msgspec.structs.replace(a_record(os.getpid()), pids={"gateway": 2}))
    assert read_record(path).pids == {"gateway": 2}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_nothing_there() -> None:
    """Said with the port."""
    with pytest.raises(ConfigError, match="no 'twinfer serve' runs on port 8000 of this machine"):
        find_record(PORT)


def test_what_a_killed_deployment_left_does_not_count(ended: int) -> None:
    """Neither alone nor beside a living one."""
    deployed(ended)
    with pytest.raises(ConfigError, match="no 'twinfer serve' runs on port 8000"):
        find_record(PORT)
    path = deployed(os.getpid())
    assert find_record(PORT) == path


def test_what_others_can_write_does_not_count() -> None:
    """Anybody may make such a directory: it must not tell us whom to kill."""
    deployed(os.getpid()).parent.chmod(0o777)
    with pytest.raises(ConfigError, match="the deployment on port 8000 is another user's"):
        find_record(PORT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_user_s() -> None:
    """Not even root touches it by accident."""
    path = deployed(os.getpid())
    os.chown(path.parent, 12345, 12345)
    with pytest.raises(ConfigError, match="another user's; run this as whoever started it"):
        find_record(PORT)


def test_unreadable_records_are_said() -> None:
    """Gone, or of another version."""
    path = deployed(os.getpid())
    path.write_text("{}")
    with pytest.raises(ConfigError, match="of another version of twinfer"):
        read_record(path)
    path.unlink()
    with pytest.raises(ConfigError, match="the deployment has ended"):
        read_record(path)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for the end of its input."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_is_running(child: subprocess.Popen[bytes], ended: int) -> None:
    """Alive, and whose child; a zombie is not alive."""
    assert is_running(child.pid)
    assert is_running(child.pid, os.getpid())
    assert not is_running(child.pid, child.pid)
    assert not is_running(ended)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(child.pid)


def test_directories_of_killed_deployments_are_removed(ended: int) -> None:
    """With all that is in them; those of running ones, of other things, and of this moment stay."""
    dead, empty, young = deployed(ended).parent, Path(tempfile.mkdtemp(prefix=directory_prefix(1))), deployed(ended, 2)
    running, other = deployed(os.getpid(), 3), Path(tempfile.mkdtemp(prefix="twinfer-notes-"))
    for path in (dead, empty, running.parent, other):
        os.utime(path, (0, 0))
    with private_directory(4) as mine:
        os.utime(mine, (0, 0))
        sweep()
        assert mine.exists()
    assert not mine.exists()
    assert [path.exists() for path in (dead, empty, young, running, other)] == [False, False, True, True, True]


def test_traces_of_a_killed_launcher(ended: int) -> None:
    """All that it kept goes with its record; what belongs to others stays with them."""
    path = deployed(ended)
    (path.parent / ROSTER).mkdir()
    for name in (ORDERS, f"{ROSTER}/decode-0.worker", "decode-0.sock"):
        (path.parent / name).touch()
    remove_traces(path)
    remove_traces(path)
    assert [left.name for left in path.parent.iterdir()] == ["decode-0.sock"]
