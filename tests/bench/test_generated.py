"""Pages are written when they differ, and named when nothing may be written."""

from pathlib import Path

import pytest
from bench.markdown import table

from bench.pages import bring


def test_bring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Checking an old page fails and leaves it; writing succeeds; checking again finds nothing."""
    path = tmp_path / "figures" / "page.md"
    assert 1 == bring({path: "new"}, check=True)
    assert not path.exists()
    assert 0 == bring({path: "new"}, check=False)
    assert "new" == path.read_text()
    capsys.readouterr()
    assert 0 == bring({path: "new"}, check=True)
    assert "" == capsys.readouterr().out


def test_a_table() -> None:
    """Heads, a rule that says which columns are flush right, rows."""
    assert ["| a | b |", "| --- | ---: |", "| 1 | 2 |"] == table(("a", ">b"), [("1", "2")])
