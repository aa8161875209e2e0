"""A decode pool without a free block, and everybody who holds them killed at once: it comes back by itself."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.e2e.clients import chat, openai_client
from tests.e2e.deployment import Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID, expected_tokens
from tests.e2e.series import Scrape
from twinfer.gateway.models import ServedModel

LEASE_S = 2.0
RESTART_S = 10.0
"""Until the gateway is back and can be asked."""
NUM_OUTPUT = 8
PROMPT_BLOCKS = 15
SMALL = (
    "pool.decode.kv_mib=1",
    "pool.decode.emulation.num_layers=4",
    "pool.prefill.emulation.num_layers=4",
    "pool.prefill.emulation.prefill_tokens_per_s=200",
    "pool.prefill.max_step_tokens=32",
    "handoff.max_busy_s=60",
    f"handoff.lease_s={LEASE_S}",
    "handoff.heartbeat_s=0.5",
)
"""Prompts that take seconds to compute, and room for about six of them where they go."""


def text(number: int) -> str:
    """A prompt of some twenty blocks that shares nothing with the others."""
    return f"{number} " + f"client {number} wants room " * 40


def is_full(scrape: Scrape) -> bool:
    """Whether no block can be promised any more: another prompt is told to wait."""
    states = ("total", "free", "cached", "promised")
    total, free, cached, promised = (scrape.of("decode-0", "kv_blocks", state) for state in states)
    return total > 0 and free + cached - promised < PROMPT_BLOCKS


def is_empty(scrape: Scrape) -> bool:
    """Whether every block of it is free or cache again."""
    states = ("total", "free", "cached", "promised")
    total, free, cached, promised = (scrape.of("decode-0", "kv_blocks", state) for state in states)
    return total > 0 and free + cached == total and promised == 0


async def test_recovers_when_every_holder_is_dead(place: Path, demo_model: ServedModel) -> None:
    """Prefill worker and gateway die together: within the lease and a second the survivor holds nothing."""
    with serving(place / "full", EMULATED, *SMALL) as deployment:
        async with crowd(deployment):
            await asyncio.to_thread(deployment.wait_for, is_full)
            deployment.kill("prefill-0")
            deployment.kill("gateway")
            killed = time.monotonic()
        await asyncio.to_thread(deployment.wait_for, is_empty)
        assert time.monotonic() - killed < LEASE_S + 1.0 + RESTART_S
        await asyncio.to_thread(deployment.wait_workers)
        async with openai_client(deployment.url) as client:
            heard = await chat(client, EMULATED_ID, text(99), NUM_OUTPUT, ignore_eos=True, route="disaggregated")
        assert expected_tokens(demo_model, text(99), NUM_OUTPUT, num_layers=4) == heard.tokens
        await asyncio.to_thread(deployment.wait_idle)


@contextlib.asynccontextmanager
async def crowd(deployment: Deployment) -> AsyncIterator[None]:
    """More clients than there is room for; what becomes of them is no concern."""
    async with openai_client(deployment.url) as client:
        calls = [
            asyncio.create_task(chat(client, EMULATED_ID, text(number), NUM_OUTPUT, route="disaggregated"))
            for number in range(12)
        ]
        yield
        await asyncio.gather(*calls, return_exceptions=True)
