"""What is asked: sessions of one or more turns, from lengths, from a trace, or from a file of prompts."""

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from twinfer.core.errors import ConfigError, TraceError
from twinfer.core.traces import read_trace
from twinfer.loadtest.lengths import read_lengths
from twinfer.loadtest.words import Passage

SHARED_STRETCH = 0
"""The number of the text that all prompts share."""


class WorkSpec(msgspec.Struct, frozen=True):
    """All that decides what is asked; two runs did the same work if these are equal.

    Args:
        source: where prompts come from.
        file: name of the trace or the file of prompts.
        sha256: of its content.
        input, output: lengths in tokens, as ``lengths.py`` reads them; of prompts from a file only the output.
        shared_tokens: every prompt begins with the same text of that length; not where a trace says what is shared.
        turns: of each session, where the source is lengths.
        pause_s: between an answer and the next turn.
        limit: only the first so many requests of a trace.
        seed: of lengths and texts.
    """

    source: str = "lengths"
    file: str = ""
    sha256: str = ""
    input: str = "256"
    output: str = "64"
    shared_tokens: int = 0
    turns: int = 1
    pause_s: float = 0.0
    limit: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """One question of a user."""

    prompt: Passage | str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Session:
    """A user's questions, each asked when the one before it was answered.

    Attributes:
        number: from 0.
        trace_s: when the trace says it arrives; ``None`` without one.
    """

    number: int
    turns: tuple[Turn, ...]
    trace_s: float | None = None


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        TraceError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise TraceError(f"cannot read {path}: {error.strerror}") from error


def sessions(spec: WorkSpec, path: Path | None) -> Iterator[Session]:
    """The sessions in order: without end, unless they come from a trace.

    Raises:
        ConfigError: lengths that are none, or a file that cannot be used.
    """
    if spec.source == "trace":
        assert path is not None
        return iter(_from_trace(spec, path))
    output, dice = read_lengths(spec.output, "--output"), random.Random(f"{spec.seed}/lengths")
    if spec.source == "prompts":
        assert path is not None
        prompts = _prompts(path)
        return (
            Session(number, tuple(Turn(text, output.draw(dice)) for text in said))
            for number, said in enumerate(itertools.cycle(prompts))
        )
    given = read_lengths(spec.input, "--input")
    return (
        Session(
            number,
            tuple(
                Turn(_passage(spec, number * spec.turns + turn, given.draw(dice)), output.draw(dice))
                for turn in range(spec.turns)
            ),
        )
        for number in itertools.count()
    )


def _passage(spec: WorkSpec, number: int, num_tokens: int) -> Passage:
    """A prompt like no other, after what is shared."""
    own = number + 1
    if not spec.shared_tokens:
        return Passage((own,), num_tokens, num_tokens)
    total = max(num_tokens, spec.shared_tokens + 1)
    shares = -(-total // spec.shared_tokens)
    return Passage((SHARED_STRETCH, *[own] * (shares - 1)), spec.shared_tokens, total)


def _from_trace(spec: WorkSpec, path: Path) -> list[Session]:
    if spec.shared_tokens and path.suffix != ".csv":
        raise ConfigError(f"{path} says itself which prompts begin alike; leave out --shared-prefix")
    found = []
    for number, one in enumerate(read_trace(path, spec.limit)):
        own = Passage(one.stretches, one.stretch_tokens, one.input_tokens)
        prompt = _passage(spec, number, one.input_tokens) if spec.shared_tokens else own
        found.append(Session(number, (Turn(prompt, one.output_tokens),), one.arrival_s))
    return found


def _prompts(path: Path) -> list[tuple[str, ...]]:
    """A file's prompts: a line of text each, or of JSON with ``prompt``, or ``turns`` or ``messages`` of a session."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"cannot read the prompts {path}: {getattr(error, 'strerror', None) or 'no text'}") from error
    plain = path.suffix not in (".jsonl", ".json")
    found = [
        (line,) if plain else _said(f"{path}, line {number}", line)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not found:
        raise TraceError(f"{path} holds no prompts; give one a line")
    return found


def _said(place: str, line: str) -> tuple[str, ...]:
    try:
        row: Any = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise TraceError(f"{place}: it is not JSON: {error}") from error
    said: Any = None
    if isinstance(row, dict):
        messages = row.get("messages")
        users = [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
        from_users = [one.get("content") for one in users if one.get("role") == "user"]
        said = row.get("turns") or from_users or [row.get("prompt")]
    if not isinstance(said, list) or not said or not all(isinstance(text, str) and text for text in said):
        raise TraceError(f"{place}: give an object with a text as prompt, or a list of texts as turns")
    return tuple(said)


def check(spec: WorkSpec) -> None:
    """Refuse what cannot be.

    Raises:
        ConfigError: says which option.
    """
    if spec.turns < 1:
        raise ConfigError(f"--turns is {spec.turns}; a session has at least 1")
    if spec.shared_tokens < 0 or spec.pause_s < 0:
        raise ConfigError("--shared-prefix and --pause cannot be negative")
