"""Sessions come from lengths, traces and files as they are described, and the same seed gives the same."""

import itertools
import statistics
from pathlib import Path

import pytest

from twinfer.core.errors import ConfigError, TraceError
from twinfer.loadtest.arrivals import LoadSpec, timed
from twinfer.loadtest.lengths import read_lengths
from twinfer.loadtest.words import Passage, Writer
from twinfer.loadtest.work import Session, Turn, WorkSpec, digest, sessions


def some(spec: WorkSpec, count: int, path: Path | None = None) -> list[Session]:
    """The first sessions."""
    return list(itertools.islice(sessions(spec, path), count))


def test_lengths_and_turns():
    """Each session has its turns, each prompt and answer its length; the seed decides them."""
    spec = WorkSpec(input="10..20", output="normal:8,2", turns=3, seed=4)
    found = some(spec, 50)
    turns = [turn for session in found for turn in session.turns]
    assert 150 == len(turns)
    assert {turn.prompt.num_tokens for turn in turns if isinstance(turn.prompt, Passage)} == set(range(10, 21))
    assert statistics.mean(turn.max_tokens for turn in turns) == pytest.approx(8, abs=0.6)
    assert found == some(spec, 50)
    assert found != some(WorkSpec(input="10..20", output="normal:8,2", turns=3, seed=5), 50)


def test_a_shared_prefix():
    """All prompts begin with the same text of that length, and go on differently."""
    writer = Writer(0)
    turns = [session.turns[0] for session in some(WorkSpec(input="100", shared_tokens=30), 3)]
    texts = [writer.text(turn.prompt).split() for turn in turns if isinstance(turn.prompt, Passage)]
    assert [100] * 3 == [len(text) for text in texts]
    assert 1 == len({tuple(text[:30]) for text in texts})
    assert 3 == len({tuple(text[30:36]) for text in texts})


def test_a_trace(tmp_path: Path):
    """Times, lengths and blocks are the trace's."""
    path = tmp_path / "t.jsonl"
    row = '{"timestamp": %d, "input_length": 600, "output_length": 5, "hash_ids": [0, 7]}\n'
    path.write_text(row % 1000 + row % 3000)
    assert some(WorkSpec(source="trace"), 9, path) == [
        Session(number, (Turn(Passage((0, 7), 512, 600), 5),), 2.0 * number) for number in range(2)
    ]
    assert 64 == len(digest(path))


def test_prompts(tmp_path: Path):
    """Lines of text, or of JSON in three forms; again from the beginning where they end."""
    plain, rows = tmp_path / "p.txt", tmp_path / "p.jsonl"
    plain.write_text("one\n\ntwo\n")
    rows.write_text(
        '{"prompt": "a"}\n{"turns": ["b", "c"]}\n'
        '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "d"}]}\n'
    )
    spec = WorkSpec(source="prompts", output="7")
    assert [["one"], ["two"], ["one"]] == [[turn.prompt for turn in one.turns] for one in some(spec, 3, plain)]
    assert [["a"], ["b", "c"], ["d"]] == [[turn.prompt for turn in one.turns] for one in some(spec, 3, rows)]
    assert {7} == {turn.max_tokens for one in some(spec, 3, rows) for turn in one.turns}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1: it is not JSON"),
        ('{"prompt": 3}', "line 1: give an object"),
        ("[]", "line 1"),
        ("", "no prompts"),
    ],
)
def test_bad_prompts(tmp_path: Path, text: str, said: str):
    """File, line, and what to write."""
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(TraceError, match=said):
        sessions(WorkSpec(source="prompts"), path)


@pytest.mark.parametrize("text", ["", "0", "-3", "9..3", "normal:5", "lognormal:0,1", "ten", "1e9"])
def test_lengths_that_are_none(text: str):
    """The option is named."""
    with pytest.raises(ConfigError, match=r"--input .* is no length"):
        read_lengths(text, "--input")


def test_poisson_arrivals():
    """Gaps have the mean and the deviation of the exponential distribution; number and time bound them."""
    load = LoadSpec(rate=50.0, max_sessions=4000, seed=1)
    times = [at_s for at_s, _ in timed(load, sessions(WorkSpec(), None))]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert 4000 == len(times)
    assert statistics.mean(gaps) == pytest.approx(0.02, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.02, rel=0.08)
    assert times == [at_s for at_s, _ in timed(load, sessions(WorkSpec(), None))]
    short = [at_s for at_s, _ in timed(LoadSpec(rate=50.0, max_s=2.0, seed=1), sessions(WorkSpec(), None))]
    assert short == [at_s for at_s in times if at_s < 2.0]


def test_a_traces_arrivals_scaled():
    """Twice as fast is half the time."""
    found = [Session(number, (), 3.0 * number) for number in range(4)]
    assert [0.0, 1.5, 3.0] == [at for at, _ in timed(LoadSpec(mode="trace", time_scale=2.0, max_s=4.0), found)]
