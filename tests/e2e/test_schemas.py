"""Answers held to a schema in a real deployment: through every door, and through the death of a worker."""

import json
import signal
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.conftest import DEMO, SPLIT
from tests.e2e.deployment import Deployment, serving
from tests.grammar.schemas import complaint
from tests.schemas.run import SERVING, ask_all

LONG = {
    "type": "object",
    "properties": {name: {"type": "string", "format": "uuid"} for name in "abcdefgh"},
    "required": list("abcdefgh"),
}


async def test_random_schemas(place: Path) -> None:
    """Every answer that was finished is one to its schema, aggregated or not; what is not supported is refused."""
    with serving(place, "", *SPLIT, *SERVING) as deployment:
        tally = await ask_all(deployment.url, 30, seed=5, max_tokens=300)
    assert [] == tally.examples
    assert {"aggregated", "disaggregated"} == set(tally.routes)
    outcomes = {outcome for _, outcome in tally.counts}
    assert "valid" in outcomes
    assert {"valid", "cut", "refused"} >= outcomes


def decoding(deployment: Deployment) -> str:
    """The decode worker that has a request."""
    scrape = deployment.scrape()
    [worker] = [name for name, role in scrape.roles.items() if role == "decode" and scrape.of(name, "running")]
    return worker


def ask(deployment: Deployment, *, until_tokens: int = 0) -> Any:
    """A streamed answer to the long schema; the worker that decodes it is killed once so many chunks came."""
    body = {
        "model": DEMO,
        "messages": [{"role": "user", "content": "def parse(text):\n" * 20}],
        "max_tokens": 800,
        "temperature": 1.0,
        "seed": 3,
        "stream": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": LONG}},
    }
    text, finish = "", None
    headers = {"x-twinfer-route": "disaggregated"}
    with httpx.stream(
        "POST", f"{deployment.url}/v1/chat/completions", json=body, headers=headers, timeout=60
    ) as answer:
        for number, line in enumerate(line for line in answer.iter_lines() if line.startswith("data: {")):
            [choice] = json.loads(line.removeprefix("data: "))["choices"]
            text += choice["delta"].get("content") or ""
            finish = choice["finish_reason"] or finish
            if until_tokens and number == until_tokens:
                deployment.kill(decoding(deployment), signal.SIGKILL)
    return text, finish


def test_a_killed_decode_worker_in_mid_answer(place: Path) -> None:
    """What another worker goes on with is the same answer, to the letter."""
    with serving(place, "", *SPLIT, "pool.decode.workers=2") as deployment:
        undisturbed = ask(deployment)
        assert ("stop", None) == (undisturbed[1], complaint(LONG, undisturbed[0]))
        assert undisturbed == ask(deployment, until_tokens=20)
        deployment.wait_workers()
