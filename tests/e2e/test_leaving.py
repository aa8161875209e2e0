"""A client that goes away in the middle leaves nothing behind on any worker, long before a lease would run out."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.deployment import Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID
from tests.e2e.series import Scrape

LEASE_S = 120.0
PROMPTLY_S = 30.0
"""An abandoned request takes well under a second where nothing else runs."""
PROMPTS = {"prefill": "many words " * 500, "decode": "few words"}
"""One that takes ten seconds, of which its client stays for the first, and one that takes none."""


def chat_call(prompt: str, streamed: bool) -> tuple[str, dict[str, Any]]:
    """Path and body of a chat completion."""
    messages = [{"role": "user", "content": prompt}]
    return "/v1/chat/completions", {"model": EMULATED_ID, "messages": messages, "stream": streamed}


def converse_call(prompt: str, streamed: bool) -> tuple[str, dict[str, Any]]:
    """Path and body of a Converse call."""
    path = f"/model/{EMULATED_ID}/converse{'-stream' if streamed else ''}"
    return path, {"messages": [{"role": "user", "content": [{"text": prompt}]}]}


@pytest.fixture(scope="module")
def slow(place: Path) -> Iterator[Deployment]:
    """A long prompt takes long, and an answer goes on for minutes."""
    sets = ("pool.prefill.emulation.prefill_tokens_per_s=200", "pool.decode.emulation.decode_step_ms=40")
    every = ("pool.prefill.max_step_tokens=64", f"handoff.lease_s={LEASE_S}", "routing.policy=disaggregated")
    with serving(place, EMULATED, *sets, *every) as deployment:
        yield deployment


def in_prefill(scrape: Scrape) -> bool:
    """The first chunks have left, and others are still to be computed."""
    return scrape.of("decode-0", "kv_blocks", "live") > 0 and scrape.of("prefill-0", "running") > 0


def in_decode(scrape: Scrape) -> bool:
    """The prompt was handed over, and tokens are drawn."""
    return scrape.of("decode-0", "running") > 0


MOMENTS: dict[str, Callable[[Scrape], bool]] = {"prefill": in_prefill, "decode": in_decode}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("call", [chat_call, converse_call])
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_leaves(slow: Deployment, call: Callable[[str, bool], Any], streamed: bool, moment: str):
    """Whatever the dialect, and whether or not it streams, in mid-prefill and in mid-decode."""
    path, body = call(f"{call.__name__} {streamed} {moment}: {PROMPTS[moment]}", streamed)

    async def ask() -> None:
        async with httpx.AsyncClient(timeout=60) as client, client.stream("POST", slow.url + path, json=body) as answer:
            async for _ in answer.aiter_bytes():
                pass

    client = asyncio.create_task(ask())
    await asyncio.to_thread(slow.wait_for, MOMENTS[moment])
    client.cancel()
    took_s = await asyncio.to_thread(slow.wait_idle, PROMPTLY_S)
    print(f"idle {took_s:.2f} s after a client left in {moment}")
    assert client.cancelled()
