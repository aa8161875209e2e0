"""Compares generated pages: words exactly, numbers nearly, since fits end a little differently elsewhere."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
_NUMBER = re.compile(r"[+-]?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")


def assert_same(written: str, computed: str) -> None:
    """Hold a committed text to a computed one."""
    assert _NUMBER.sub("#", computed) == _NUMBER.sub("#", written)
    assert _numbers(computed) == pytest.approx(_numbers(written), rel=0.05, abs=1.1)


def _numbers(text: str) -> list[float]:
    return [float(number.replace(",", "").rstrip(".")) for number in _NUMBER.findall(text)]
