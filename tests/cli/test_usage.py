"""``twinfer usage``."""

import csv
import json
import sys
from pathlib import Path

import pytest

from tests.usage.records import NOON_MS, a_record
from twinfer.cli import main
from twinfer.core.config import IdentityConfig
from twinfer.identity.place import place_of
from twinfer.usage.ledger import COLUMNS, Filter, Ledger
from twinfer.usage.record import Status


@pytest.fixture
def database(tmp_path: Path) -> str:
    """As ``--set`` takes it: three requests of two tenants, a day apart."""
    url = f"sqlite:///{tmp_path}/usage.db"
    day = 86_400_000
    Ledger(place_of(IdentityConfig(database=url), {})).write(
        [
            a_record(0),
            a_record(1, at_ms=NOON_MS + day, cost_nano=1_500_000_000),
            a_record(2, tenant="beta", status=Status.CANCELLED, cost_nano=None),
        ]
    )
    return f"identity.database={url}"


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    """The rows that it prints as JSON."""
    assert main(["usage", "--json", *arguments]) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)["rows"]
    return rows


def test_sums(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Split as wanted, narrowed by time and tenant; money is decimal text."""
    rows = report(capsys, "--set", database)
    assert [(row["tenant"], row["requests"], row["cost"]) for row in rows] == [
        ("acme", 2, "1.500000007"),
        ("beta", 1, None),
    ]
    rows = report(capsys, "--set", database, "--by", "day", "--tenant", "acme", "--since", "2026-01-02")
    assert [(row["day"], row["requests"], row["kv_gib_s"]) for row in rows] == [("2026-01-02", 1, 1.0)]
    assert report(capsys, "--set", database, "--until", "2026-01-01T12:00") == []


def test_a_table(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For people."""
    assert main(["usage", "--set", database, "--by", "tenant"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["tenant", "acme", "beta"]


def test_export(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every record with every column; a format that is not there is one sentence."""
    path = tmp_path / "usage.csv"
    assert main(["usage", "--set", database, "--export", str(path)]) == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["request_id"] for row in rows] == ["request-0", "request-2", "request-1"]
    assert main(["usage", "--set", database, "--export", str(tmp_path / "usage.xls")]) == 2
    assert "ends in none of .csv, .parquet" in capsys.readouterr().err


def test_export_to_parquet(database: str, tmp_path: Path) -> None:
    """The very rows of the ledger with their types, and nothing in place of a price that is not there."""
    parquet = pytest.importorskip("pyarrow.parquet")
    ledger = Ledger(place_of(IdentityConfig(database=database.partition("=")[2]), {}))
    ledger.write([a_record(number, kv_byte_s=0.5, bytes_moved=2**40) for number in range(10, 12)])
    path = tmp_path / "usage.parquet"
    assert main(["usage", "--set", database, "--export", str(path)]) == 0
    table = parquet.read_table(path)
    assert tuple(table.column_names) == COLUMNS
    assert table.to_pylist() == list(ledger.rows(Filter()))
    assert table.column("cost_nano").to_pylist() == [7, None, 7, 7, 1_500_000_000]
    kinds = {name: str(table.schema.field(name).type) for name in COLUMNS}
    assert [kinds[name] for name in ("tenant", "at_ms", "prefill_s", "bytes_moved", "recoveries", "cost_nano")] == [
        *("string", "int64", "double", "int64", "int32", "int64")
    ]


def test_nothing_is_a_table_too(tmp_path: Path) -> None:
    """Columns without rows, so that whoever reads them every day need not ask first."""
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "usage.parquet"
    assert main(["usage", "--set", f"identity.database=sqlite:///{tmp_path}/none.db", "--export", str(path)]) == 0
    table = parquet.read_table(path)
    assert (tuple(table.column_names), table.num_rows) == (COLUMNS, 0)


def test_parquet_without_pyarrow_is_one_sentence(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to install, and what to do without it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["usage", "--set", database, "--export", str(tmp_path / "usage.parquet")]) == 2
    assert "Parquet needs pyarrow: pip install 'twinfer[parquet]', or export .csv" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--since", "yesterday"), ("--until", "5"), ("--by", "colour")])
def test_mistakes(database: str, arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and what to write instead."""
    assert main(["usage", "--set", database, *arguments]) == 2
    assert arguments[1] in capsys.readouterr().err
