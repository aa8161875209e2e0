"""What is not used any more goes, and nothing else."""

import os
from pathlib import Path

import pytest

from twinfer.model.cache_files import mark_used, remove_unused
from twinfer.model.mapping import map_file

pytestmark = pytest.mark.torch

NAMES = ("mapped", "wanted", "new", "old", ".half.17.tmp", ".old.lock")


def test_what_nobody_wanted_or_maps_goes(tmp_path: Path) -> None:
    """Half-made files of makers that died among them; a file that was mapped goes the next time."""
    for name in NAMES:
        (tmp_path / name).write_bytes(b"weights")
    mapping = map_file(tmp_path / "mapped")
    for name in NAMES:
        os.utime(tmp_path / name, (100.0, 100.0))
    with (tmp_path / "new").open("ab") as file:
        file.write(b"changed now")
    mark_used(tmp_path / "wanted", 500.0)
    mark_used(tmp_path / "missing", 500.0)
    assert (tmp_path / "wanted").stat().st_mtime == 100.0
    assert [path.name for path in remove_unused(tmp_path, 400.0)] == [".half.17.tmp", "old"]
    mapping.close()
    assert [path.name for path in remove_unused(tmp_path, 400.0)] == ["mapped"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".old.lock", "new", "wanted"]
