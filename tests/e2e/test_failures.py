"""Processes are killed or frozen under running requests: no wrong text, no clean end after a failure, no leak."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from botocore.exceptions import EventStreamError

from tests.e2e.clients import Heard, bedrock_client, chat, finish, openai_client, opened
from tests.e2e.deployment import Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID, expected_tokens
from tests.e2e.series import Scrape
from twinfer.gateway.models import ServedModel

LEASE_S = 2.0
NUM_OUTPUT = 80
"""Two seconds of them: whoever is to be met in the middle of it is, on a slow machine too."""
NUM_AFTER = 8
SLOW = (
    "pool.prefill.emulation.prefill_tokens_per_s=200",
    "pool.prefill.max_step_tokens=32",
    "pool.decode.emulation.decode_step_ms=25",
    f"handoff.lease_s={LEASE_S}",
    "handoff.heartbeat_s=0.5",
)
Expect = Callable[[str], list[bytes]]


@pytest.fixture(scope="module")
def pair(place: Path) -> Iterator[Deployment]:
    """One prefill and two decode workers, so that there is somebody to go on, and patience until somebody is there."""
    with serving(place / "pair", EMULATED, *SLOW, "pool.decode.workers=2", "handoff.max_busy_s=45") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def single(place: Path) -> Iterator[Deployment]:
    """One worker of each kind, and no patience: nobody takes over from the decode worker."""
    with serving(place / "single", EMULATED, *SLOW, "handoff.max_busy_s=0") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def expect(demo_model: ServedModel) -> Expect:
    """What an emulated worker must answer to a text, token by token."""
    return lambda text: expected_tokens(demo_model, text, NUM_OUTPUT)


@contextlib.asynccontextmanager
async def asking(deployment: Deployment, text: str) -> Any:
    """A client's stream under way, as a task that hears it to its end, and what it has heard so far."""
    heard = Heard()

    async def hear() -> Heard:
        return await finish(await opened(client, EMULATED_ID, text, NUM_OUTPUT, ignore_eos=True), heard)

    async with openai_client(deployment.url) as client:
        task = asyncio.create_task(hear())
        try:
            yield task, heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def in_prefill(deployment: Deployment) -> Scrape:
    """The state when chunks have left the prefill worker and others are still to be computed."""

    def look(scrape: Scrape) -> bool:
        handed = sum(scrape.of(worker, "kv_blocks", "live") for worker in scrape.roles if worker != "prefill-0")
        return handed > 0 and scrape.of("prefill-0", "running") > 0

    return await asyncio.to_thread(deployment.wait_for, look)


async def in_decode(deployment: Deployment, heard: Heard, num_tokens: int = 5) -> str:
    """The worker that decodes, once so many tokens were heard."""
    while len(heard.drawn) < num_tokens:
        await asyncio.sleep(0.01)
    scrape = await asyncio.to_thread(deployment.scrape)
    return next(worker for worker in scrape.roles if worker != "prefill-0" and scrape.of(worker, "running"))


async def check_serves(deployment: Deployment, what: str, expect: Expect) -> None:
    """All workers are at rest, and another request is answered right over two of them."""
    text = f"Is all well after {what}? " * 4
    await asyncio.to_thread(deployment.wait_workers)
    await asyncio.to_thread(deployment.wait_idle)
    async with openai_client(deployment.url) as client:
        heard = await chat(client, EMULATED_ID, text, NUM_AFTER, ignore_eos=True, route="disaggregated")
    assert heard.tokens == expect(text)[:NUM_AFTER]
    await asyncio.to_thread(deployment.wait_idle)


def a_text(name: str) -> str:
    """A prompt of more than a second that nothing is cached of."""
    return f"{name}: " + "many words " * 60


async def test_prefill_worker_killed(pair: Deployment, expect: Expect):
    """The prompt is computed elsewhere, the client sees a pause; the worker is started again."""
    text = a_text("prefill killed")
    async with asking(pair, text) as (answer, _):
        await in_prefill(pair)
        said = pair.kill("prefill-0")
        assert (await answer).tokens == expect(text)
    await asyncio.to_thread(pair.wait_restarted, "prefill-0", said)
    await check_serves(pair, "a prefill worker", expect)


async def test_decode_worker_killed(pair: Deployment, expect: Expect):
    """The stream goes on from another worker with the same tokens; the worker is started again."""
    text = a_text("decode killed")
    async with asking(pair, text) as (answer, heard):
        worker = await in_decode(pair, heard)
        said = pair.kill(worker)
        assert (await answer).tokens == expect(text)
        assert heard.journey["decode_worker"] != worker
    await asyncio.to_thread(pair.wait_restarted, worker, said)
    await check_serves(pair, "a decode worker", expect)


async def test_prefill_worker_frozen(pair: Deployment, expect: Expect):
    """A worker that stops in mid-prefill loses its lease or its stream, whichever ends first, and the answer comes."""
    text = a_text("prefill frozen")
    async with asking(pair, text) as (answer, _):
        await in_prefill(pair)
        pid = pair.pid("prefill-0")
        os.kill(pid, signal.SIGSTOP)
        try:
            assert (await answer).tokens == expect(text)
        finally:
            os.kill(pid, signal.SIGCONT)
    await check_serves(pair, "a frozen prefill worker", expect)
    scrape = pair.scrape()
    ended = ("handoffs_expired_total", "handoffs_aborted_total")
    assert sum(scrape.of(worker, name) for worker in scrape.roles for name in ended) >= 1


async def test_decode_worker_frozen(pair: Deployment, expect: Expect):
    """A worker that stops in mid-decode is given up after a while; when it comes to, it knows of nothing any more."""
    text = a_text("decode frozen")
    async with asking(pair, text) as (answer, heard):
        pid = pair.pid(await in_decode(pair, heard))
        os.kill(pid, signal.SIGSTOP)
        try:
            assert (await answer).tokens == expect(text)
        finally:
            os.kill(pid, signal.SIGCONT)
    await check_serves(pair, "a frozen decode worker", expect)


@pytest.mark.parametrize("moment", ["reserved", "prefill", "decode"])
async def test_gateway_killed(pair: Deployment, expect: Expect, moment: str):
    """The client's connection breaks, never ends cleanly; the workers free everything, and a new gateway serves."""
    frozen = pair.pid("prefill-0") if moment == "reserved" else None
    async with asking(pair, a_text(f"gateway killed in {moment}")) as (answer, heard):
        if frozen is not None:
            os.kill(frozen, signal.SIGSTOP)
            await asyncio.to_thread(pair.wait_for, lambda scrape: "sink_promised" in scrape.states("handoffs_open"))
        elif moment == "prefill":
            await in_prefill(pair)
        else:
            await in_decode(pair, heard)
        said = pair.kill("gateway")
        with pytest.raises((openai.APIError, httpx.RemoteProtocolError)):
            await answer
        if frozen is not None:
            os.kill(frozen, signal.SIGCONT)
    await asyncio.to_thread(pair.wait_restarted, "gateway", said)
    await check_serves(pair, f"a gateway in {moment}", expect)


async def test_decode_worker_killed_late(pair: Deployment, expect: Expect):
    """What was heard already is not decoded once more: the other worker computes it like a prompt, and goes on."""
    text = a_text("decode killed late")
    async with asking(pair, text) as (answer, heard):
        worker = await in_decode(pair, heard, NUM_OUTPUT - 40)
        before = await asyncio.to_thread(pair.scrape)
        said = pair.kill(worker)
        assert (await answer).tokens == expect(text)
    other = heard.journey["decode_worker"]
    after = await asyncio.to_thread(pair.scrape)
    assert other != worker
    assert after.of(other, "decode_tokens_total") - before.of(other, "decode_tokens_total") <= 40
    await asyncio.to_thread(pair.wait_restarted, worker, said)


async def test_decode_worker_killed_before_it_took_over(pair: Deployment, expect: Expect):
    """Another decode worker is granted the KV that was computed already: no position is computed twice."""
    text = a_text("decode killed in prefill")
    before = await asyncio.to_thread(pair.scrape)
    async with asking(pair, text) as (answer, _):
        scrape = await in_prefill(pair)
        worker = next(name for name in scrape.roles if name != "prefill-0" and scrape.of(name, "kv_blocks", "live"))
        said = pair.kill(worker)
        heard = await answer
    assert heard.tokens == expect(text)
    after = await asyncio.to_thread(pair.scrape)
    computed = after.of("prefill-0", "prefill_tokens_total") - before.of("prefill-0", "prefill_tokens_total")
    assert computed == heard.usage.prompt_tokens
    await asyncio.to_thread(pair.wait_restarted, worker, said)
    await check_serves(pair, "a sink", expect)


async def test_all_decode_workers_killed(pair: Deployment, expect: Expect):
    """The stream waits for one of them to come back, and goes on with the same tokens."""
    text = a_text("all decode workers")
    async with asking(pair, text) as (answer, heard):
        await in_decode(pair, heard)
        said = min(pair.kill("decode-0"), pair.kill("decode-1"))
        assert (await answer).tokens == expect(text)
    for worker in ("decode-0", "decode-1"):
        await asyncio.to_thread(pair.wait_restarted, worker, said)
    await check_serves(pair, "all decode workers", expect)


async def test_nobody_to_wait_for(single: Deployment, expect: Expect):
    """Without patience the stream ends in an error that says what happened, after right tokens only."""
    text = a_text("the only decode worker")
    async with asking(single, text) as (answer, heard):
        await in_decode(single, heard)
        said = single.kill("decode-0")
        with pytest.raises(openai.APIError, match="decode-0 was lost"):
            await answer
    assert heard.finish is None
    assert heard.tokens == expect(text)[: len(heard.tokens)]
    await asyncio.to_thread(single.wait_restarted, "decode-0", said)
    await check_serves(single, "the only decode worker", expect)


async def test_nobody_to_wait_for_bedrock(single: Deployment, expect: Expect):
    """boto3 raises for the same, and sees no messageStop before."""

    kinds: list[str] = []
    with bedrock_client(single.url) as client:
        messages = [{"role": "user", "content": [{"text": a_text("the only decode worker, by boto3")}]}]
        response = client.converse_stream(modelId=EMULATED_ID, messages=messages)
        with contextlib.closing(response["stream"]) as stream:
            events = iter(stream)
            for _ in range(8):
                kinds += next(events)
            said = single.kill("decode-0")
            with pytest.raises(EventStreamError, match="decode-0 was lost"):
                kinds += [kind for event in events for kind in event]
    assert set(kinds) <= {"messageStart", "contentBlockDelta"}
    await asyncio.to_thread(single.wait_restarted, "decode-0", said)
    await check_serves(single, "the only decode worker, by boto3", expect)
