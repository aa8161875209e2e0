"""Who lives: told by the kernel, however somebody ends."""

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from twinfer.core.errors import ConfigError
from twinfer.usage.presence import Presence


def hold(path: Path, told: Connection) -> None:
    """Be present, say under which name, and do nothing more."""
    presence = Presence(path)
    told.send(presence.name)
    told.recv()


def test_a_killed_process_lives_no_more(tmp_path: Path) -> None:
    """At once, until it is buried; one that lives is seen, and one that left is not missed unless it says so."""
    path = tmp_path / "book"
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(path, there))
    process.start()
    name, ours, other = here.recv(), Presence(path), Presence(path)
    assert ours.roll_call() == ({ours.name, other.name, name}, set())
    assert not ours.misses()
    process.kill()
    process.join()
    assert ours.misses()
    last = Presence(path)
    other.close()
    other.close(missing=True)
    last.close(missing=True)
    assert ours.roll_call() == ({ours.name}, {name, last.name})
    ours.bury({name})
    assert ours.misses()
    ours.bury({last.name, name})
    assert not ours.misses()
    assert [file.name for file in tmp_path.iterdir()] == [f"book.{ours.name}"]


def test_a_directory_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """With what to set."""
    with pytest.raises(ConfigError, match=r"cannot write to .*nowhere: No such file or directory; set usage\.spool"):
        Presence(tmp_path / "nowhere" / "book")
