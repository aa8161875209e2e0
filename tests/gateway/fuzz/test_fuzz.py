"""A short run of the gateway's fuzzer in every test run, and the proof that it can fail."""

import logging
from collections.abc import Iterator

import pytest

from tests.gateway.fuzz.__main__ import MAX_GROWTH_BYTES, MAX_GROWTH_OBJECTS, calling_model, fuzz
from tests.gateway.fuzz.run import Front, explore
from twinfer.gateway import app
from twinfer.gateway.models import ServedModel

NUM_REQUESTS = 500
"""Requests whose numbers are low; among them are some with a length of thousands of digits."""


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """The fuzzer's model."""
    return calling_model(tmp_path_factory.mktemp("fuzzed"))


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """pytest keeps what is logged, which would be growth."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def test_no_request_is_our_fault(calling: ServedModel) -> None:
    """Whatever is wrong with it, it is answered or refused in its API's own words, and nothing of it stays."""
    findings = await explore(Front(calling), range(NUM_REQUESTS))
    assert findings.wrong == []
    assert sum(findings.statuses.values()) == NUM_REQUESTS
    assert findings.statuses["200"] > 100
    assert findings.statuses["400"] > 100


async def test_a_bug_is_found(calling: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as to read numbers of any length."""
    monkeypatch.setattr(app, "_MAX_DIGITS", 10_000)
    findings = await explore(Front(calling), range(NUM_REQUESTS))
    assert findings.wrong
    assert "a bug" in findings.wrong[0][1]


async def test_a_leak_is_found(calling: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that are kept when they are over show as growth."""
    kept = []
    before = app.Delivery.__init__
    monkeypatch.setattr(app.Delivery, "__init__", lambda self, *args: kept.append(self) or before(self, *args))
    _, objects, _ = await fuzz(calling, 0, 4 * NUM_REQUESTS)
    assert objects > MAX_GROWTH_OBJECTS


@pytest.mark.e2e
@pytest.mark.timeout(300)
async def test_ten_thousand_requests(calling: ServedModel) -> None:
    """None goes wrong, and what the gateway holds does not grow."""
    findings, objects, size = await fuzz(calling, 0, 10_000)
    assert findings.wrong == []
    assert objects <= MAX_GROWTH_OBJECTS
    assert size <= MAX_GROWTH_BYTES
