"""Records that wait on disk."""

from pathlib import Path

import pytest

from tests.usage.records import a_record
from twinfer.core.config import IdentityConfig
from twinfer.core.errors import ConfigError
from twinfer.identity.place import place_of
from twinfer.usage.ledger import Filter, Ledger
from twinfer.usage.spool import Spool


def test_what_was_kept_is_handed_over_once(tmp_path: Path) -> None:
    """By whoever comes first, and to a ledger that has some of it already."""
    spool = Spool(tmp_path / "spool")
    ledger = Ledger(place_of(IdentityConfig(database=f"sqlite:///{tmp_path}/usage.db"), {}))
    ledger.write([a_record(1)])
    spool.keep([a_record(0), a_record(1)])
    spool.keep([a_record(2)])
    assert spool.hand_over(ledger.write) == 3
    assert spool.hand_over(ledger.write) == 0
    assert [row["request_id"] for row in ledger.rows(Filter())] == ["request-0", "request-1", "request-2"]


def test_a_ledger_that_fails_leaves_them(tmp_path: Path) -> None:
    """For the next time."""
    spool, written = Spool(tmp_path), list[object]()
    spool.keep([a_record()])

    def fail(records: object) -> None:
        raise ConfigError("away")

    with pytest.raises(ConfigError, match="away"):
        spool.hand_over(fail)
    assert spool.hand_over(written.append) == 1
    assert written == [[a_record()]]


def test_a_strange_file_is_one_sentence(tmp_path: Path) -> None:
    """And stays where it is."""
    strange = tmp_path / "usage-1-1.spool"
    strange.write_bytes(b"strange")
    with pytest.raises(ConfigError, match=r"usage-1-1\.spool cannot be read: .*; move it away"):
        Spool(tmp_path).hand_over(lambda records: None)
    assert strange.exists()
