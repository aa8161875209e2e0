from pathlib import Path

import pytest

from twinfer.core.errors import ConfigError
from twinfer.identity.seal import Seal, create_key, read_key


def test_what_is_sealed_opens_with_the_same_key_and_name_alone() -> None:
    """Neither another key, nor the row of another name, nor a changed byte."""
    seal = Seal(b"k" * 32)
    sealed = seal.close("AKID", "secret")
    assert b"secret" not in sealed
    assert seal.open("AKID", sealed) == "secret"
    assert seal.open("OTHER", sealed) is None
    assert Seal(b"l" * 32).open("AKID", sealed) is None
    assert seal.open("AKID", sealed[:-1] + bytes([sealed[-1] ^ 1])) is None
    assert seal.open("AKID", b"") is None
    assert seal.close("AKID", "secret") != sealed


def test_a_key_is_made_once(tmp_path: Path) -> None:
    """For its owner alone; whoever comes second takes the first one's."""
    path = tmp_path / "deep" / "a.key"
    first = create_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert create_key(path) == first == read_key(path)
    assert [each.name for each in path.parent.iterdir()] == ["a.key"]


def test_a_key_from_the_environment_comes_first(tmp_path: Path) -> None:
    """And needs no file."""
    assert read_key(tmp_path / "none") is None
    assert read_key(tmp_path / "none", "ab" * 32) == bytes.fromhex("ab" * 32)
    with pytest.raises(ConfigError, match="TWINFER_DATABASE_KEY must hold 64 hexadecimal digits"):
        read_key(tmp_path / "none", "abc")


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """It may be known already."""
    path = tmp_path / "a.key"
    create_key(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others may read the database's key"):
        read_key(path)


def test_a_broken_key_file_is_one_sentence(tmp_path: Path) -> None:
    """Cut off, or something else."""
    path = tmp_path / "a.key"
    path.touch(mode=0o600)
    path.write_text("abc")
    with pytest.raises(ConfigError, match=r"a\.key must hold 64 hexadecimal digits"):
        read_key(path)
