"""A small pool over a host tier: what many prompts pushed out is brought back, or lent, and never to a stranger."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import Heard, chat, openai_client
from tests.e2e.deployment import Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID, expected_tokens
from twinfer.gateway.models import ServedModel

BLOCK = 16
NUM_OUTPUT = 8
SMALL = tuple(f"pool.{name}.{key}" for name in ("prefill", "decode") for key in ("kv_mib=1", "host_kv_mib=8"))
"""256 bytes a token: a pool of 4,096 tokens, of which each prompt below takes about a quarter."""


@pytest.fixture(scope="module")
def small(place: Path) -> Iterator[Deployment]:
    """One worker of each kind."""
    with serving(place / "small", EMULATED, *SMALL) as deployment:
        yield deployment


def a_text(name: str) -> str:
    """A prompt of some thousand tokens."""
    return f"{name}: " + "many words " * 250


async def ask(deployment: Deployment, model: ServedModel, text: str, route: str, **options: object) -> Heard:
    """Ask, and hear what is right."""
    async with openai_client(deployment.url) as client:
        heard = await chat(client, EMULATED_ID, text, NUM_OUTPUT, ignore_eos=True, route=route, **options)
    assert heard.tokens == expected_tokens(model, text, NUM_OUTPUT)
    assert heard.usage.prompt_tokens_details.cached_tokens == heard.journey["cached_tokens"]
    return heard


async def push_out(deployment: Deployment, model: ServedModel, name: str, route: str) -> None:
    """More prompts than fit a pool."""
    for number in range(6):
        await ask(deployment, model, a_text(f"{name} {number}"), route)


@pytest.mark.parametrize(("route", "worker"), [("aggregated", "decode-0"), ("disaggregated", "prefill-0")])
async def test_asked_again(small: Deployment, demo_model: ServedModel, route: str, worker: str):
    """The first of many prompts is not computed again; the accounts of client and worker say so. With another salt,
    which parts requests as tenants are parted, it is."""
    text = a_text(f"first {route}")
    first = await ask(small, demo_model, text, route)
    await push_out(small, demo_model, route, route)
    before = await asyncio.to_thread(small.scrape)
    stranger = await ask(small, demo_model, text, route, cache_salt="another")
    again = await ask(small, demo_model, text, route)
    after = await asyncio.to_thread(small.scrape)
    full = (first.usage.prompt_tokens - 1) // BLOCK * BLOCK
    assert (first.journey["cached_tokens"], stranger.journey["cached_tokens"]) == (0, 0)
    assert again.journey["cached_tokens"] == full
    assert after.of(worker, "host_tokens_total") - before.of(worker, "host_tokens_total") == full
    assert after.of(worker, "host_saved_blocks_total") > 0
    assert after.of(worker, "host_bad_blocks_total") == 0
    assert after.of(worker, "host_blocks", "cached") > 0
    await asyncio.to_thread(small.wait_idle)


async def test_lent_from_the_host(small: Deployment, demo_model: ServedModel):
    """What only the decode worker's host tier has of a prompt is fetched from there by the prefill worker."""
    text = a_text("lent")
    await ask(small, demo_model, text, "aggregated")
    await push_out(small, demo_model, "lent", "aggregated")
    before = await asyncio.to_thread(small.scrape)
    heard = await ask(small, demo_model, f"{text} and more", "disaggregated")
    after = await asyncio.to_thread(small.scrape)
    fetched = after.of("prefill-0", "fetched_tokens_total") - before.of("prefill-0", "fetched_tokens_total")
    assert heard.usage.prompt_tokens - 2 * BLOCK < fetched == heard.journey["cached_tokens"]
    assert heard.journey["reason"].endswith("its beginning was fetched from decode-0")
    assert after.of("decode-0", "host_tokens_total") == before.of("decode-0", "host_tokens_total")
    await asyncio.to_thread(small.wait_idle)
