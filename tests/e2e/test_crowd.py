"""Many clients at once: everybody is answered, and nobody gets somebody else's text."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

import pytest

from tests.e2e.clients import Heard, chat, openai_client
from tests.e2e.conftest import DEMO, SOURCE
from tests.e2e.deployment import Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID, expected_tokens
from twinfer.chaos.oracle import wrong_text
from twinfer.gateway.models import ServedModel

NUM_CLIENTS = 64
NUM_REQUESTS = 300


async def ask_all(
    deployment: Deployment,
    model: str,
    asked: list[tuple[str, int]],
    at_once: int,
    routes: Sequence[str | None] = (None,),
    **options: bool,
) -> list[Heard]:
    """All answers, with so many clients under way at a time; they force these routes in turn, ``None`` none."""
    gate = asyncio.Semaphore(at_once)
    async with openai_client(deployment.url) as client:

        async def ask(prompt: str, num_output: int, route: str | None) -> Heard:
            async with gate:
                return await chat(client, model, prompt, num_output, route=route, **options)

        return await asyncio.gather(*(ask(*each, route) for each, route in zip(asked, cycle(routes), strict=False)))


def mixed_prompts(count: int, longest: int, seed: int) -> list[tuple[str, int]]:
    """Prompts of all lengths up to so many characters, some of which share their beginning, and answer lengths."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        start = draw.randrange(0, 2000) if number % 4 else 0
        head = "" if number % 4 == 0 else f"# {number}\n"
        found.append((head + SOURCE[start : start + draw.randrange(20, longest)], draw.randrange(1, 24)))
    return found


async def test_native(demo: Deployment, demo_alone: Deployment):
    """64 streaming clients of the demo model hear what each would hear alone, by rule R7, whichever way they take: some
    force one, and the others take what the router thinks best."""
    asked = mixed_prompts(NUM_CLIENTS, 900, seed=1)
    heard = await ask_all(demo, DEMO, asked, NUM_CLIENTS, ("disaggregated", None, "aggregated", None))
    alone = await ask_all(demo_alone, DEMO, asked, 1)
    wrong = [wrong_text(expected.drawn, actual.drawn) for expected, actual in zip(alone, heard, strict=True)]
    assert [reason for reason in wrong if reason] == []
    assert {answer.route for answer in heard} == {"aggregated", "disaggregated"}
    assert all(
        answer.finish == "stop" or len(answer.drawn) == most for answer, (_, most) in zip(heard, asked, strict=True)
    )
    await asyncio.to_thread(demo.wait_idle)


@pytest.fixture(scope="module")
def emulated(place: Path) -> Iterator[Deployment]:
    """An emulated deployment: next tokens are a function of the KV bytes really present."""
    with serving(place, EMULATED) as deployment:
        yield deployment


async def test_emulated(emulated: Deployment, demo_model: ServedModel):
    """Hundreds of requests, 64 at a time, are answered with exactly the tokens that follow from their prompts."""
    asked = mixed_prompts(NUM_REQUESTS, 3000, seed=2)
    heard = await ask_all(emulated, EMULATED_ID, asked, NUM_CLIENTS, ignore_eos=True)
    for (text, num_output), answer in zip(asked, heard, strict=True):
        assert expected_tokens(demo_model, text, num_output) == answer.tokens
        assert answer.usage.completion_tokens == num_output
    await asyncio.to_thread(emulated.wait_idle)
    scrape = emulated.scrape()
    assert scrape.of("decode-0", "handoffs_in_total") == scrape.of("prefill-0", "handoffs_out_total") > NUM_REQUESTS / 2
    assert scrape.of("decode-0", "integrity_failures_total") == 0
