"""A few hundred requests; ``python -m tests.accounts`` is the whole of it."""

from pathlib import Path

import pytest

from tests.accounts.run import run


@pytest.mark.timeout(300)
def test_quotas_ledger_and_responses_say_the_same(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After clients that leave, workers that are killed, and retries; and no log has a secret or a prompt."""
    assert run(place, 400, 4, seed=0) == []
    said = capsys.readouterr().out
    assert "400 questions" in said
    assert " 0 kills" not in said
