"""Traces are read as they are published, and bad ones refused with file, line and field."""

from pathlib import Path

import pytest

from twinfer.core.errors import TraceError
from twinfer.core.traces import faster, read_trace

GOOD = '{"timestamp": 3000, "input_length": 600, "output_length": 5, "hash_ids": [0, 7]}\n'
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
SERVEGEN = "timestamp_s,client_id,input_tokens,output_tokens,reason_tokens\n"


def write(path: Path, text: str) -> Path:
    """A trace."""
    path.write_text(text, encoding="utf-8")
    return path


def test_mooncake(tmp_path: Path) -> None:
    """Milliseconds from the first arrival on; equal numbers are equal blocks of 512 tokens."""
    path = write(tmp_path / "t.jsonl", GOOD + GOOD.replace("3000", "1000").replace("[0, 7]", "[0, 8]"))
    first, second = read_trace(path)
    assert (0.0, 2.0, 5) == (first.arrival_s, second.arrival_s, first.output_tokens)
    assert [600, 600, 512] == [first.input_tokens, second.input_tokens, first.stretch_tokens]
    assert [(0, 8), (0, 7)] == [first.stretches, second.stretches]


def test_azure(tmp_path: Path) -> None:
    """Times of day with seven digits; no two prompts begin alike."""
    rows = "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,4808,8\n"
    first, second = read_trace(write(tmp_path / "t.csv", AZURE + rows))
    assert (0.0, 4808, 8) == (first.arrival_s, first.input_tokens, second.output_tokens)
    assert second.arrival_s == pytest.approx(0.052, abs=1e-6)
    assert first.stretches != second.stretches


def test_servegen(tmp_path: Path) -> None:
    """Seconds; further columns do not matter."""
    rows = "0.5,23,187,482,397\n2.0,23,220,648,556\n"
    assert [(0.0, 187, 482), (1.5, 220, 648)] == [
        (one.arrival_s, one.input_tokens, one.output_tokens)
        for one in read_trace(write(tmp_path / "t.csv", SERVEGEN + rows))
    ]


def test_less_and_faster(tmp_path: Path) -> None:
    """The first requests only, and all of them in half the time."""
    path = write(tmp_path / "t.csv", SERVEGEN + "0,1,1,1,0\n2,1,1,1,0\n4,1,1,1,0\n")
    assert [0.0, 1.0] == [one.arrival_s for one in faster(read_trace(path, limit=2), 2.0)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.jsonl", GOOD + GOOD.replace("600", "-600"), "line 2: input_length is '-600'"),
        ("t.jsonl", GOOD.replace("5", "0"), "line 1: output_length is '0'"),
        ("t.jsonl", GOOD.replace("5", "true"), "line 1: output_length is 'True'"),
        ("t.jsonl", GOOD.replace("3000", "-1"), "line 1: timestamp is '-1'; it has to be a number of milliseconds"),
        ("t.jsonl", GOOD.replace("[0, 7]", "[0]"), "line 1: hash_ids is '[0]'; it has to be a list of 2 whole numbers"),
        ("t.jsonl", GOOD.replace("[0, 7]", '[0, "a"]'), "line 1: hash_ids is"),
        ("t.jsonl", GOOD.replace("hash_ids", "hashes"), "line 1: hash_ids is missing"),
        ("t.jsonl", GOOD + "nonsense\n", "line 2: it is not JSON"),
        ("t.jsonl", "[1]\n", "line 1: it has to be a JSON object"),
        ("t.jsonl", "", "holds no requests"),
        ("t.csv", AZURE.replace(",GeneratedTokens", "") + "2023-11-16 18:17:03,5\n", "2: GeneratedTokens is missing"),
        ("t.csv", AZURE + "2023-11-16 18:17:03,5,\n", "line 2: GeneratedTokens is missing"),
        ("t.csv", AZURE + "yesterday,5,5\n", "line 2: TIMESTAMP is 'yesterday'; it has to be a time"),
        ("t.csv", AZURE + "2023-11-16 18:17:03,5.5,5\n", "line 2: ContextTokens is '5.5'"),
        ("t.csv", SERVEGEN + "-1,1,5,5,0\n", "line 2: timestamp_s is '-1'; it has to be a number of seconds"),
        ("t.csv", SERVEGEN + "nan,1,5,5,0\n", "line 2: timestamp_s is 'nan'"),
        ("t.csv", SERVEGEN + "1,1,many,5,0\n", "line 2: input_tokens is 'many'"),
    ],
)
def test_bad_traces(tmp_path: Path, name: str, text: str, message: str) -> None:
    """One sentence that names file, line and field."""
    path = write(tmp_path / name, text)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    """Missing, or not text."""
    with pytest.raises(TraceError, match="No such file"):
        read_trace(tmp_path / "none.csv")
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match="not UTF-8"):
        read_trace(path)
