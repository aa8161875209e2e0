"""Workloads have the lengths that they say, and the trace that is written of them reads as these."""

from pathlib import Path

import pytest
from bench.published.workloads import SHORTEST_PROMPT, WORKLOADS, Fixed, Scaled, Workload, write_trace

from twinfer.core.traces import read_trace
from twinfer.loadtest.words import Passage, Writer
from twinfer.loadtest.work import WorkSpec, sessions


@pytest.mark.parametrize("workload", WORKLOADS, ids=[one.name for one in WORKLOADS])
def test_lengths(workload: Workload, tmp_path: Path) -> None:
    """Every workload has requests enough, all fit in the context, and its file holds the same lengths in order."""
    rows, path = workload.lengths.rows(), tmp_path / "trace.csv"
    assert 400 == len(rows)
    assert max(prompt + answer for prompt, answer in rows) < 8192
    assert min(prompt for prompt, _ in rows) >= SHORTEST_PROMPT
    assert min(answer for _, answer in rows) >= 2
    write_trace(rows, path)
    assert rows == [(one.input_tokens, one.output_tokens) for one in read_trace(path)]


def test_scaling(tmp_path: Path) -> None:
    """Shared tokens come on top of an own part that is divided; answers are divided and cut."""
    plain, scaled = Scaled("azure_code.csv", 1, 1, 0, 10**6), Scaled("azure_code.csv", 4, 2, 256, 20)
    expected = [(256 + max(SHORTEST_PROMPT, given // 4), min(20, max(2, said // 2))) for given, said in plain.rows()]
    assert expected == scaled.rows()


def test_shared_text(tmp_path: Path) -> None:
    """Prompts of a trace begin with the shared text for real, and go on differently."""
    path, writer = tmp_path / "trace.csv", Writer(0)
    write_trace(Fixed(40, 4).rows()[:3], path)
    asked = [one.turns[0].prompt for one in sessions(WorkSpec("trace", path.name, shared_tokens=30), path)]
    texts = [writer.text(prompt).split() for prompt in asked if isinstance(prompt, Passage)]
    assert [40] * 3 == [len(text) for text in texts]
    assert 1 == len({tuple(text[:30]) for text in texts})
    assert 3 == len({tuple(text[30:]) for text in texts})
