"""A promised time to the first token that a queue makes impossible: refused at once, and kept when it is gone."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.e2e.clients import bedrock_client, chat, openai_client
from tests.e2e.deployment import Deployment, eventually, serving
from tests.e2e.emulated import EMULATED_ID

PROMISED_S = 2.0
NUM_BEFORE = 12
"""Prompts of a second or more each are in the queue, unless somebody waits behind them who comes first."""
CONFIG = f"""
[[model]]
id = "{EMULATED_ID}"

[[profile]]
id = "soon"
model = "{EMULATED_ID}"
first_token_ms = {PROMISED_S * 1e3}

[[profile]]
id = "first"
model = "{EMULATED_ID}"
first_token_ms = {PROMISED_S * 1e3}
tier = "priority"

[[pool]]
name = "both"
role = "both"
engine = "emulated"
kv_mib = 16
emulation.device = "xeon-amx"
emulation.model_shape = "qwen2.5-0.5b"
emulation.time_scale = 30
"""
"""One worker that computes some 3,000 prompt tokens in a second, and says so."""


def ask(url: str, profile: str) -> dict[str, Any]:
    """A short prompt by an inference profile.

    Raises:
        ClientError: as boto3 understands the refusal.
    """
    arn = f"arn:aws:bedrock:us-east-1:000000000000:application-inference-profile/{profile}"
    messages = [{"role": "user", "content": [{"text": "how long do I wait?"}]}]
    with bedrock_client(url) as client:
        answer: dict[str, Any] = client.converse(modelId=arn, messages=messages, inferenceConfig={"maxTokens": 2})
    return answer


def served(url: str, profile: str) -> dict[str, Any] | None:
    """The same, or nothing while steps that this machine makes late let it be foreseen too late."""
    try:
        return ask(url, profile)
    except ClientError:
        return None


@contextlib.asynccontextmanager
async def queue(deployment: Deployment) -> AsyncIterator[None]:
    """Long prompts are on the worker, and their clients leave at the end."""
    async with openai_client(deployment.url) as client:
        texts = (f"{number} " + f"client {number} was here before " * 320 for number in range(NUM_BEFORE))
        tasks = [asyncio.create_task(chat(client, EMULATED_ID, text, 1)) for text in texts]
        try:
            await asyncio.to_thread(
                deployment.wait_for, lambda scrape: scrape.of("both-0", "requests_total") == NUM_BEFORE
            )
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_promise_that_cannot_be_kept_is_refused_before_anything_begins(place: Path) -> None:
    """Bedrock's 503 says when to come back; who comes first is served meanwhile, and everybody once the queue left."""
    with serving(place / "promises", CONFIG, "routing.policy=cost") as deployment:
        async with queue(deployment):
            with pytest.raises(ClientError) as refused:
                await asyncio.to_thread(ask, deployment.url, "soon")
            assert NUM_BEFORE == deployment.scrape().of("both-0", "requests_total")
            first = await asyncio.to_thread(
                eventually, lambda: served(deployment.url, "first"), "an answer to the first"
            )
            assert "max_tokens" == first["stopReason"]
            assert deployment.scrape().of("both-0", "waiting") > 0
        answer = refused.value.response
        assert "ServiceUnavailableException" == answer["Error"]["Code"]
        told = answer["ResponseMetadata"]
        assert 503 == told["HTTPStatusCode"]
        foreseen = re.search(
            r"would come after ([\d.]+) s, and this inference profile promises 2 s", str(refused.value)
        )
        assert foreseen is not None
        hint_s = int(told["HTTPHeaders"]["x-amz-retry-after"]) / 1e3
        assert float(foreseen[1]) - PROMISED_S == pytest.approx(hint_s, abs=0.06)
        assert hint_s > PROMISED_S
        await asyncio.to_thread(deployment.wait_idle)
        again = await asyncio.to_thread(
            eventually, lambda: served(deployment.url, "soon"), "an answer to whoever waited"
        )
        assert "max_tokens" == again["stopReason"]
        metrics = httpx.get(f"{deployment.url}/metrics", timeout=10).raise_for_status().text
        assert re.search(
            r'^twinfer_gateway_refused_total{reason="promise",tier="default"} [1-9]', metrics, re.MULTILINE
        )
