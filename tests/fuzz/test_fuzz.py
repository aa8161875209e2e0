"""A short run of the fuzzer in every test run, and the proof that it can fail."""

import contextlib

import pytest

from tests.fuzz.__main__ import explore
from tests.fuzz.mutants import MUTANTS


def test_no_world_goes_wrong() -> None:
    """A thousand handoffs under every kind of fault: no wrong token, no leak, no hang."""
    findings = explore(range(45))
    assert findings.wrong == []
    assert findings.handoffs > 1000
    assert findings.answered > 500


FIRST = {"free early": 34, "commit without asking": 49, "ignore the epoch": 72, "confirm after the lease": 228}
"""Worlds that notice a breach which few others do: the search begins there, and goes on should they have changed."""


@pytest.mark.parametrize("rule", MUTANTS)
def test_a_broken_rule_is_found(rule: str) -> None:
    """With one rule broken some world goes wrong."""
    first = FIRST.get(rule, 0)
    with contextlib.ExitStack() as stack:
        for change in MUTANTS[rule]():
            stack.enter_context(change)
        assert explore(range(first, first + 1000)).wrong
