"""A prefill worker fetches what the decode worker has of a conversation, and does without when that goes wrong."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.clients import Heard, chat, finish, openai_client, opened, take
from tests.e2e.conftest import DEMO, SOURCE, SPLIT
from tests.e2e.deployment import RULE, Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID, expected_tokens
from tests.e2e.series import Scrape
from twinfer.chaos.oracle import wrong_text
from twinfer.core.grant import Proof
from twinfer.gateway.models import ServedModel

NUM_OUTPUT = 20
NUM_HELD = 40
"""Tokens of an answer that keeps a slow worker busy for a while."""
BLOCK = 16
COMPUTED = "prefill_tokens_total"


@pytest.fixture(scope="module", params=Proof)
def quick(place: Path, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """One worker of each kind, with commits of either kind."""
    with serving(place / request.param, EMULATED, f"handoff.commit={request.param}") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def slow(place: Path) -> Iterator[Deployment]:
    """A link on which a long prompt's KV takes seconds, and a lease of which a fetch may take two."""
    sets = ("link.throttle_mb_per_s=0.05", "handoff.lease_s=4", "handoff.heartbeat_s=0.5", "handoff.chunk_kib=16")
    decode = ("pool.decode.workers=2", "pool.decode.emulation.decode_step_ms=25")
    with serving(place / "slow", EMULATED, *sets, *decode) as deployment:
        yield deployment


def fetches(deployment: Deployment) -> dict[str, float]:
    """Fetches by outcome, so far."""
    text = httpx.get(f"{deployment.url}/metrics", timeout=10).raise_for_status().text
    families = [f for f in text_string_to_metric_families(text) if f.name == "twinfer_gateway_fetches"]
    return {s.labels["outcome"]: s.value for f in families for s in f.samples if s.name.endswith("_total")}


def new_fetches(deployment: Deployment, before: dict[str, float]) -> dict[str, float]:
    """Fetches since then by outcome, of which there were any."""
    return {
        name: count - before.get(name, 0) for name, count in fetches(deployment).items() if count > before.get(name, 0)
    }


def a_text(name: str) -> str:
    """The beginning of a prompt, a thousand tokens of it."""
    return f"{name}: " + "many words " * 250


async def known_to_decode(deployment: Deployment, text: str) -> None:
    """Let every decode worker compute that text, and all come to rest.

    Which of them a request goes to follows from what a gateway knows of their load, and no test can know when it heard
    what: so it is asked again while earlier answers are still under way, until all have computed it.
    """
    before = deployment.scrape()
    workers = [worker for worker, role in before.roles.items() if role == "decode"]
    async with openai_client(deployment.url) as client, asyncio.TaskGroup() as answers:
        while True:
            stream = await opened(client, EMULATED_ID, text, NUM_HELD, route="aggregated", ignore_eos=True)
            answers.create_task(finish(stream, await take(stream, Heard(), 1)))
            now = await asyncio.to_thread(deployment.scrape)
            if all(now.of(name, COMPUTED) > before.of(name, COMPUTED) for name in workers):
                break
    await asyncio.to_thread(deployment.wait_idle)


async def test_prefix_is_fetched(quick: Deployment, demo_model: ServedModel):
    """What the decode worker computed is not computed again: the accounts of client and workers say so."""
    text = a_text("fetched")
    await known_to_decode(quick, text)
    before, said = quick.scrape(), fetches(quick)
    async with openai_client(quick.url) as client:
        heard = await chat(client, EMULATED_ID, f"{text} and more", NUM_OUTPUT, ignore_eos=True, route="disaggregated")
    assert heard.tokens == expected_tokens(demo_model, f"{text} and more", NUM_OUTPUT)
    assert new_fetches(quick, said) == {"fetched": 1}
    quick.wait_idle()
    after = quick.scrape()

    def grown(worker: str, name: str) -> float:
        return after.of(worker, name) - before.of(worker, name)

    fetched, num_prompt = grown("prefill-0", "fetched_tokens_total"), heard.usage.prompt_tokens
    assert num_prompt - 2 * BLOCK < fetched < num_prompt
    assert heard.journey["cached_tokens"] == heard.usage.prompt_tokens_details.cached_tokens == fetched
    assert grown("prefill-0", "prefill_tokens_total") == num_prompt - fetched
    assert (grown("prefill-0", "fetches_in_total"), grown("decode-0", "fetches_out_total")) == (1, 1)
    assert grown("decode-0", "handoffs_in_total") == 1
    assert grown("prefill-0", "kv_bytes_in_total") == fetched * 256
    assert heard.journey["fetch_ms"] > 0
    assert heard.journey["reason"].endswith("its beginning was fetched from decode-0")


async def test_second_turn_of_a_chat(place: Path, demo_alone: Deployment):
    """R7 on real numbers: prompt and answer of the first turn are fetched, and the second is answered as if not."""
    few = ("routing.min_fetch_tokens=16", "routing.min_remote_tokens=8")
    with serving(place / "demo", "", *SPLIT, *few, RULE) as deployment:
        async with openai_client(deployment.url) as client, openai_client(demo_alone.url) as alone:
            turns = [{"role": "user", "content": SOURCE[300:900]}]
            first = await chat(client, DEMO, turns, 80, route="disaggregated", ignore_eos=True)
            turns += [
                {"role": "assistant", "content": first.text},
                {"role": "user", "content": "\n\ndef twice(text):\n"},
            ]
            again = await chat(client, DEMO, turns, NUM_OUTPUT, route="disaggregated")
            reference = await chat(alone, DEMO, turns, NUM_OUTPUT)
        assert fetches(deployment) == {"fetched": 1}
        deployment.wait_idle()
        scrape = deployment.scrape()
        assert scrape.of("prefill-0", "fetched_tokens_total") >= 16
        assert scrape.of("prefill-0", "fetches_in_total") == 1
        assert again.journey["cached_tokens"] >= first.usage.prompt_tokens // BLOCK * BLOCK + 16
        assert again.usage.prompt_tokens_details.cached_tokens == again.journey["cached_tokens"]
        assert reference.journey["cached_tokens"] == 0
        assert wrong_text(reference.drawn, again.drawn, epsilon=0) is None


async def lender(deployment: Deployment) -> str:
    """The decode worker from which some of a prefix has come, but not all."""

    def look(scrape: Scrape) -> bool:
        return scrape.of("prefill-0", "handoffs_open", "sink_receiving") > 0

    scrape = await asyncio.to_thread(deployment.wait_for, look)
    return next(worker for worker in scrape.roles if scrape.of(worker, "handoffs_open", "sink_promised"))


async def test_decode_worker_killed_in_a_fetch(slow: Deployment, demo_model: ServedModel):
    """Its part of the prefix is no more worth than none: nothing of it is ever found, and the answer is right."""
    text = a_text("killed")
    await known_to_decode(slow, text)
    before, counted = slow.scrape(), fetches(slow)
    async with openai_client(slow.url) as client:
        answer = asyncio.create_task(
            chat(client, EMULATED_ID, f"{text} and more", NUM_OUTPUT, ignore_eos=True, route="disaggregated")
        )
        worker = await lender(slow)
        said = slow.kill(worker)
        heard = await answer
    assert heard.tokens == expected_tokens(demo_model, f"{text} and more", NUM_OUTPUT)
    assert heard.journey["decode_worker"] != worker
    assert new_fetches(slow, counted)["abandoned"] == 1
    after = slow.scrape()
    assert after.of("prefill-0", "fetches_in_total") == before.of("prefill-0", "fetches_in_total")
    assert heard.journey["cached_tokens"] == 0
    await asyncio.to_thread(slow.wait_restarted, worker, said)
    await asyncio.to_thread(slow.wait_idle)


async def test_fetch_that_takes_too_long(slow: Deployment, demo_model: ServedModel):
    """After half a lease the prompt is computed instead; no attempt is lost, and nothing stays held."""
    text = a_text("late")
    await known_to_decode(slow, text)
    said = fetches(slow)
    async with openai_client(slow.url) as client:
        heard = await chat(client, EMULATED_ID, f"{text} and more", NUM_OUTPUT, ignore_eos=True, route="disaggregated")
    assert heard.tokens == expected_tokens(demo_model, f"{text} and more", NUM_OUTPUT)
    assert heard.journey["prefill_worker"] == "prefill-0"
    assert new_fetches(slow, said) == {"overdue": 1}
    assert 1900 <= heard.journey["fetch_ms"]
    assert heard.journey["cached_tokens"] == 0
    await asyncio.to_thread(slow.wait_idle)
