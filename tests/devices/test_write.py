"""What is written as a file of the catalogue reads back as the same."""

from pathlib import Path

import pytest

from twinfer.devices.catalogue import Catalogue, read_entry
from twinfer.devices.profile import Entry
from twinfer.devices.write import write_entry

ENTRIES = Catalogue().entries


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])
def test_every_entry_survives(entry: Entry, tmp_path: Path) -> None:
    """All classes, with curves and without, with optional numbers and without."""
    assert entry == read_entry(write_entry(entry, tmp_path / "new"))
