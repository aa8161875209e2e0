"""Records as files: CSV, and Parquet where pyarrow is installed."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from twinfer.core.errors import ConfigError
from twinfer.usage.ledger import COLUMNS

_ROWS_AT_ONCE = 10_000


def export(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write rows of the ledger in the format that the file's name ends in; returns how many.

    Raises:
        ConfigError: there is no such format, it needs pyarrow, or the file cannot be written.
    """
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise ConfigError(f"{path} ends in none of {', '.join(writers)}; name the file by its format")
    try:
        return writers[path.suffix](rows, path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _write_csv(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow(row)
            count += 1
    return count


def _write_parquet(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow: pip install 'twinfer[parquet]', or export .csv") from error
    kinds = {"recoveries": arrow.int32()}
    kinds |= {name: arrow.float64() for name in COLUMNS if name.endswith("_s")}
    kinds |= {name: arrow.int64() for name in COLUMNS if name.endswith(("_tokens", "_ms", "_nano", "bytes_moved"))}
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in COLUMNS])
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for batch in _batches(rows):
            writer.write_table(arrow.Table.from_pylist([dict(row) for row in batch], schema))
            count += len(batch)
    return count


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    source = iter(rows)
    while batch := list(islice(source, _ROWS_AT_ONCE)):
        yield batch
