"""A deployment that benchmarks start, by a process in its place."""

import os
import sys
from pathlib import Path

import pytest
from bench.deployment import Served, started

TALKATIVE = """
import sys
print("twinfer serves a.model at http://127.0.0.1:7 (ready in 1 s)", file=sys.stderr, flush=True)
for number in range(20_000):
    print("a line of a log", number, file=sys.stderr)
with open(sys.argv[1], "w") as news:
    news.write("all is logged")
"""


@pytest.mark.timeout(30)
def test_nobody_logs_into_a_full_pipe(tmp_path: Path) -> None:
    """What is said once it serves is read, however much that is, and whoever started it need not do so."""
    news = tmp_path / "news"
    os.mkfifo(news)
    with started([sys.executable, "-c", TALKATIVE, str(news)]) as served:
        assert "all is logged" == news.read_text()
    assert Served("a.model", "http://127.0.0.1:7", served.pid) == served


def test_one_that_does_not_start() -> None:
    """It ends, and the command is named."""
    with pytest.raises(SystemExit, match=r"did not start: .* pass"), started([sys.executable, "-c", "pass"]):
        pass
