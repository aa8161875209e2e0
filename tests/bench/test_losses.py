"""Cases whose sign is known come out with it."""

from dataclasses import replace

import pytest
from bench.validation.losses import Case, cases

from twinfer.devices.catalogue import Catalogue

CASES = cases(Catalogue())


@pytest.mark.parametrize("case", CASES, ids=[case.condition for case in CASES])
def test_the_sign(case: Case) -> None:
    """A loss where others measured one, a gain where they did not."""
    assert case.holds


def test_both_signs_are_among_them() -> None:
    """A model that always says no does not pass."""
    assert {True, False} == {case.loses for case in CASES}


def test_a_case_can_fail() -> None:
    """More is better of rates, less is of times; equal is no loss."""
    loss = Case("a condition", "somebody", "requests per second", 2.0, 1.0, more_is_better=True)
    assert loss.holds
    assert not replace(loss, apart=3.0).holds
    assert not replace(loss, apart=2.0).holds
    assert not replace(loss, more_is_better=False).holds
    assert replace(loss, apart=3.0, loses=False).holds
