"""Traces of requests in three published forms: Mooncake's JSON lines, Azure's and ServeGen's CSV.

Only Mooncake's says which prompts begin alike: one number for each 512 tokens. In the others no two do.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from twinfer.core.errors import TraceError
from twinfer.core.service import Tier

MOONCAKE_BLOCK_TOKENS = 512
MAX_TOKENS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request.

    Attributes:
        arrival_s: seconds after the first one.
        input_tokens: length of the prompt, at least 1.
        output_tokens: length of the answer, at least 1.
        stretches: what each stretch of the prompt holds; equal numbers at equal places mean equal tokens.
        stretch_tokens: positions of each stretch; the last one may be cut short.
        tier: its service tier; no published trace says one.
    """

    arrival_s: float
    input_tokens: int
    output_tokens: int
    stretches: tuple[int, ...]
    stretch_tokens: int
    tier: Tier = Tier.DEFAULT


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a file, as it says so in complaints."""

    path: Path
    line: int
    fields: Mapping[str, Any]

    def wrong(self, field: str, advice: str) -> TraceError:
        found = self.fields.get(field)
        said = "is missing" if found is None or found == "" else f"is {str(found)[:40]!r}"
        return TraceError(f"{self.path}, line {self.line}: {field} {said}; {advice}")

    def tokens(self, field: str) -> int:
        """A length, at least 1."""
        advice = "it has to be a whole number of tokens, at least 1"
        found = self.fields.get(field)
        try:
            number = int(found) if isinstance(found, str | int) and not isinstance(found, bool) else 0
        except ValueError:
            raise self.wrong(field, advice) from None
        if not 1 <= number <= MAX_TOKENS:
            raise self.wrong(field, advice)
        return number

    def seconds(self, field: str, unit_s: float) -> float:
        """A time from the start, not negative."""
        advice = f"it has to be a number of {'milliseconds' if unit_s < 1 else 'seconds'}, not negative"
        found = self.fields.get(field)
        try:
            number = float(found) if isinstance(found, str | int | float) and not isinstance(found, bool) else -1.0
        except ValueError:
            raise self.wrong(field, advice) from None
        if not 0 <= number < 1e15:
            raise self.wrong(field, advice)
        return number * unit_s

    def moment(self, field: str) -> float:
        """A time of day with its date, in seconds since the epoch."""
        try:
            return datetime.fromisoformat(str(self.fields.get(field))).replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise self.wrong(field, "it has to be a time such as 2023-11-16 18:17:03.9799600") from None

    def blocks(self, field: str, num_tokens: int) -> tuple[int, ...]:
        """One number for each block of the prompt."""
        found, needed = self.fields.get(field), -(-num_tokens // MOONCAKE_BLOCK_TOKENS)
        whole = isinstance(found, list) and all(type(one) is int and 0 <= one < 2**32 for one in found)
        if not whole or len(found or ()) != needed:
            raise self.wrong(
                field, f"it has to be a list of {needed} whole numbers, one for each {MOONCAKE_BLOCK_TOKENS} tokens"
            )
        return tuple(found or ())


def _mooncake(row: _Row, _: int) -> TraceRequest:
    length = row.tokens("input_length")
    blocks = row.blocks("hash_ids", length)
    arrival_s = row.seconds("timestamp", 1e-3)
    return TraceRequest(arrival_s, length, row.tokens("output_length"), blocks, MOONCAKE_BLOCK_TOKENS)


def _azure(row: _Row, number: int) -> TraceRequest:
    length = row.tokens("ContextTokens")
    return TraceRequest(row.moment("TIMESTAMP"), length, row.tokens("GeneratedTokens"), (number,), length)


def _servegen(row: _Row, number: int) -> TraceRequest:
    length = row.tokens("input_tokens")
    return TraceRequest(row.seconds("timestamp_s", 1.0), length, row.tokens("output_tokens"), (number,), length)


_READERS: dict[tuple[str, ...], Callable[[_Row, int], TraceRequest]] = {
    ("timestamp", "input_length", "output_length", "hash_ids"): _mooncake,
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens"): _azure,
    ("timestamp_s", "input_tokens", "output_tokens"): _servegen,
}


def read_trace(path: Path, limit: int | None = None) -> list[TraceRequest]:
    """The requests of a file in order of arrival, the first one at 0.

    Args:
        path: in one of the forms above; its first line tells which.
        limit: only the first so many.

    Raises:
        TraceError: it cannot be read, or a field is missing or out of range: the file, the line and the field.
    """
    requests = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(_rows(path, file)):
                if limit is not None and number >= limit:
                    break
                requests.append(_reader(row)(row, number))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise TraceError(f"cannot read the trace {path}: {reason}") from error
    if not requests:
        raise TraceError(f"{path} holds no requests; give a trace with at least one")
    requests.sort(key=lambda request: request.arrival_s)
    first_s = requests[0].arrival_s
    return [replace(one, arrival_s=one.arrival_s - first_s) for one in requests]


def faster(requests: Iterable[TraceRequest], rate_scale: float) -> list[TraceRequest]:
    """The same requests, arriving that many times as often."""
    return [replace(one, arrival_s=one.arrival_s / rate_scale) for one in requests]


def _rows(path: Path, file: Iterable[str]) -> Iterator[_Row]:
    if path.suffix == ".csv":
        reader = csv.DictReader(file)
        for fields in reader:
            yield _Row(path, reader.line_num, fields)
        return
    for line, text in enumerate(file, 1):
        try:
            fields = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise TraceError(f"{path}, line {line}: it is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise TraceError(f"{path}, line {line}: it has to be a JSON object with timestamp, input_length and others")
        yield _Row(path, line, fields)


def _reader(row: _Row) -> Callable[[_Row, int], TraceRequest]:
    """The one of the form that the row comes nearest to."""
    there = {name for name, value in row.fields.items() if value is not None}
    fields = max(_READERS, key=lambda names: len(there.intersection(names)))
    missing = [name for name in fields if name not in there]
    if missing:
        known = "; ".join(", ".join(names) for names in _READERS)
        raise TraceError(f"{row.path}, line {row.line}: {missing[0]} is missing; traces have the fields {known}")
    return _READERS[fields]
