"""A few hundred requests; ``python -m tests.accounts`` is the whole of it."""

import re
from pathlib import Path

import pytest

from tests.accounts.kills import Plan
from tests.accounts.run import run


@pytest.mark.timeout(300)
def test_quotas_ledger_and_responses_say_the_same(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After clients that leave, workers and gateways that are killed, and retries; no log has a secret or a prompt."""
    assert run(place, Plan(requests=400, worker_kills=2, gateway_kills=2)) == []
    said = capsys.readouterr().out
    counts = {name: int(count) for name, count in re.findall(r"^(questions|\w+ killed) +(\d+)$", said, re.MULTILINE)}
    assert {"questions", "workers killed", "gateways killed"} == set(counts)
    assert counts["questions"] >= 400
    assert min(counts.values()) > 0
