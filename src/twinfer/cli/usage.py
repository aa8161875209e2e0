"""``twinfer usage``: what tenants used and what it cost, from the ledger."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from twinfer.cli.configuration import load_config
from twinfer.core.errors import ConfigError
from twinfer.identity.place import place_of
from twinfer.usage.export import export
from twinfer.usage.ledger import PERIODS, Filter, Ledger
from twinfer.usage.prices import read_prices

_AGO = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SHOWN = (
    ("requests", "requests"),
    ("not_answered", "not answered"),
    ("input_tokens", "input"),
    ("cache_read_tokens", "cache read"),
    ("cache_write_tokens", "cache write"),
    ("output_tokens", "output"),
    ("prefill_s", "prefill s"),
    ("decode_s", "decode s"),
    ("kv_gib_s", "KV GiB s"),
    ("bytes_moved", "moved"),
    ("recoveries", "recoveries"),
    ("cost", "cost"),
)
"""Columns of the table, with their headings."""


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked."""
    config = load_config(arguments)
    now = time.time()
    wanted = Filter(
        _moment_ms("--since", arguments.since, now),
        _moment_ms("--until", arguments.until, now),
        arguments.tenant,
        arguments.model,
    )
    ledger = Ledger(place_of(config.identity))
    if arguments.export:
        count = export(ledger.rows(wanted), Path(arguments.export))
        print(f"wrote {count} records to {arguments.export}", file=sys.stderr)
        return 0
    by = [name.strip() for name in arguments.by.split(",") if name.strip()]
    currency = read_prices(config.usage.prices).currency
    rows = [_readable(row, by) for row in ledger.sums(by, wanted)]
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode({"currency": currency, "rows": rows})).decode())
    elif not rows:
        print("no requests in that time; see: twinfer usage --help", file=sys.stderr)
    else:
        _print_table(rows, by, currency)
    return 0


def _readable(row: dict[str, Any], by: Sequence[str]) -> dict[str, Any]:
    """A row of sums with periods by name, KV time in a unit people can read, and the cost in whole units."""
    shown = dict(row)
    for name in by:
        if name in PERIODS:
            moment = datetime.fromtimestamp(row[name] / 1000, UTC)
            shown[name] = moment.strftime("%Y-%m-%d" if name == "day" else "%Y-%m-%dT%H:00Z")
    nano = shown.pop("cost_nano")
    shown["kv_gib_s"] = shown.pop("kv_byte_s") / 2**30
    shown["cost"] = None if nano is None else str(Decimal(nano) / 10**9)
    return shown


def _print_table(rows: Sequence[dict[str, Any]], by: Sequence[str], currency: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for name in by:
        table.add_column(name, overflow="fold")
    for name, heading in _SHOWN:
        table.add_column(f"{heading} {currency}".strip() if name == "cost" else heading, justify="right")
    for row in rows:
        table.add_row(*(str(row[name]) or "-" for name in by), *(_cell(row[name]) for name, _ in _SHOWN))
    Console(width=None if sys.stdout.isatty() else 250, highlight=False, markup=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _moment_ms(option: str, text: str | None, now: float) -> int | None:
    """Unix milliseconds of ``24h`` (ago), ``2026-01-31`` or ``2026-01-31T12:00`` (UTC)."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return int((now - int(ago[1]) * _UNIT_S[ago[2]]) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{option} {text!r}: write how long ago, such as 24h or 7d, or a date, such as 2026-01-31"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
