"""A gateway without free places, over HTTP: who is sent away, and who has places of its own."""

import asyncio
import contextlib

import pytest

from tests.gateway.house import EOS, converse_body, open_house
from twinfer.core.config import Config, GatewayConfig, ModelConfig, QuotaConfig
from twinfer.gateway.fake import Script
from twinfer.gateway.models import ServedModel

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
STREAM = f"/model/{MODEL}/converse-stream"


async def test_flex_is_sent_away_first_and_the_reserved_tier_last(model: ServedModel) -> None:
    """Flex when half of the places are taken, default when all are; the reserved tier has as many of its own."""
    gate, ends = asyncio.Event(), Script([[70], [EOS]])
    config = Config(
        model=(ModelConfig(id=MODEL),),
        gateway=GatewayConfig(max_requests=2),
        quota=(QuotaConfig(reserved_tokens_per_min=100_000),),
    )

    def asked(tier: str) -> dict[str, object]:
        return converse_body() | {"serviceTier": {"type": tier}, "inferenceConfig": {"maxTokens": 5}}

    async with open_house(model, config) as house, contextlib.AsyncExitStack() as stack:
        house.plays(Script([[70], [EOS]], gates={1: gate}))
        await stack.enter_async_context(house.http.stream("POST", STREAM, json=asked("default")))
        flex = await house.http.post(STREAM, json=asked("flex"))
        await stack.enter_async_context(house.http.stream("POST", STREAM, json=asked("default")))
        priority = await house.http.post(STREAM, json=asked("priority"))
        house.plays(ends)
        reserved = await house.http.post(f"/model/{MODEL}/converse", json=asked("reserved"))
        gate.set()
        assert [503, 503, 200] == [answer.status_code for answer in (flex, priority, reserved)]
        assert {"type": "reserved"} == reserved.json()["serviceTier"]
        assert "takes no more of tier flex from 1 on" in flex.json()["message"]
        for tier in ("flex", "priority"):
            series = f'twinfer_gateway_refused_total{{reason="places",tier="{tier}"}} 1.0'
            assert series in (await house.http.get("/metrics")).text
