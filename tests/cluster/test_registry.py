"""Who stands in a registry, and which registries are trusted."""

from pathlib import Path

import pytest

from twinfer.cluster.registry import announced, check_registry, read_registry
from twinfer.core.errors import ConfigError
from twinfer.core.ids import WorkerId


def test_stands_there_while_it_serves(tmp_path: Path) -> None:
    """A worker is found by name and address, and no longer once it left; what is no entry is passed over."""
    (tmp_path / "odd.worker").write_text("no entry")
    with announced(tmp_path, WorkerId("decode-7"), "127.0.0.1:7001"):
        assert read_registry(tmp_path, encrypted=False) == {"decode-7": "127.0.0.1:7001"}
    assert read_registry(tmp_path, encrypted=False) == {}


def test_foreign_addresses(tmp_path: Path) -> None:
    """Without certificates nobody of another machine is dialled."""
    with announced(tmp_path, WorkerId("far-0"), "10.1.2.3:7001"):
        assert read_registry(tmp_path, encrypted=False) == {}
        assert read_registry(tmp_path, encrypted=True) == {"far-0": "10.1.2.3:7001"}


def test_untrusted(tmp_path: Path) -> None:
    """A directory that is not there, or that others may write to, is refused."""
    with pytest.raises(ConfigError, match="make this directory"):
        check_registry(str(tmp_path / "none"))
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="chmod 700"):
        check_registry(str(tmp_path))
