"""A pool without room, and everybody dead or silent for whom it is held: it comes back by its leases alone."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import openai
import pytest

from tests.e2e.clients import chat, openai_client
from tests.e2e.deployment import WAIT_S, Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID, expected_tokens
from twinfer.core.load import LoadReport
from twinfer.gateway.models import ServedModel
from twinfer.rpc.client import connect

KEY = bytes(range(32))
LEASE_S = 2.0
GRACE_S = 1.0
NUM_CLIENTS = 24
NUM_OUTPUT = 8
LAYERS = ("pool.decode.emulation.num_layers=4", "pool.prefill.emulation.num_layers=4")
"""512 bytes a token: a pool of 1 MiB has 128 blocks, room for about six of the prompts below."""
HANDOFF = (f"handoff.lease_s={LEASE_S}", "handoff.heartbeat_s=0.5", "handoff.max_busy_s=60")


def text(number: int) -> str:
    """A prompt of some twenty blocks that shares nothing with the others."""
    return f"{number} " + f"client {number} wants room " * 40


class Crowd:
    """Clients that all ask at once, and what one worker says of itself meanwhile, without a gateway between."""

    def __init__(self, deployment: Deployment, asker: openai.AsyncOpenAI, worker: str) -> None:
        socket = next(deployment.directory.glob(f"twinfer-*/{worker}.sock"))
        self._client = connect(f"unix:{socket}", KEY)
        calls = (
            chat(asker, EMULATED_ID, text(number), NUM_OUTPUT, route="disaggregated", ignore_eos=True)
            for number in range(NUM_CLIENTS)
        )
        self._tasks = [asyncio.create_task(call) for call in calls]

    async def until(self, condition: Callable[[LoadReport], bool], within_s: float = WAIT_S) -> LoadReport:
        """The worker's first report of which the condition holds."""
        deadline = time.monotonic() + within_s
        while not condition(report := await self._client.report(5.0)):
            assert time.monotonic() < deadline, f"not within {within_s:g} s, but {report}"
            await asyncio.sleep(0.02)
        return report

    async def close(self) -> None:
        """Everybody leaves."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()


@contextlib.asynccontextmanager
async def crowding(deployment: Deployment, worker: str) -> AsyncIterator[Crowd]:
    """A crowd that is gone afterwards."""
    async with openai_client(deployment.url) as asker:
        crowd = Crowd(deployment, asker, worker)
        try:
            yield crowd
        finally:
            await crowd.close()


def is_whole(report: LoadReport) -> bool:
    """Nothing is held for anybody."""
    blocks = report.blocks
    return blocks.free + blocks.cached == blocks.total and not (blocks.promised or report.handoffs)


def num_given_up(report: LoadReport) -> int:
    """Handoffs that ended without a commit: by their own lease, or because their gateway was silent for as long."""
    return report.counters.handoffs_expired + report.counters.handoffs_aborted


async def serves_again(deployment: Deployment, model: ServedModel) -> None:
    """A new request is answered right, over both workers."""
    await asyncio.to_thread(deployment.wait_workers)
    await asyncio.to_thread(deployment.wait_idle)
    async with openai_client(deployment.url) as client:
        heard = await chat(client, EMULATED_ID, text(99), NUM_OUTPUT, route="disaggregated", ignore_eos=True)
    assert heard.tokens == expected_tokens(model, text(99), NUM_OUTPUT, num_layers=4)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_sink_full_of_promises(place: Path, demo_model: ServedModel, number: signal.Signals):
    """The source and the gateway die, or hang without closing a connection: every promise ends within its lease.

    Those that a hanging gateway had waiting for room may be granted it meanwhile, each for a lease of its own.
    """
    sets = (*LAYERS, *HANDOFF, "pool.decode.kv_mib=1")
    with serving(place / f"sink{number.value}", EMULATED, *sets, key=KEY) as deployment:
        source, gateway = deployment.pid("prefill-0"), deployment.pid("gateway")
        os.kill(source, signal.SIGSTOP)
        async with crowding(deployment, "decode-0") as crowd:
            await crowd.until(lambda report: report.blocks.free - report.blocks.promised < 20)
            full = await crowd.until(lambda report: report.blocks.promised > 100)
            said = len(deployment.output.lines)
            for pid in (gateway, source):
                os.kill(pid, number)
            leases = 2 if number is signal.SIGSTOP else 1
            after = await crowd.until(is_whole, leases * LEASE_S + GRACE_S)
            if number is signal.SIGSTOP:
                assert num_given_up(after) > num_given_up(full)
                for pid in (gateway, source):
                    os.kill(pid, signal.SIGKILL)
        for name in ("gateway", "prefill-0"):
            await asyncio.to_thread(deployment.wait_restarted, name, said)
        await serves_again(deployment, demo_model)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_source_full_of_parked_prompts(place: Path, demo_model: ServedModel, number: signal.Signals):
    """The sink and the gateway die or hang: what is parked for them becomes ordinary cache within its lease."""
    sets = (*LAYERS, *HANDOFF, "pool.prefill.kv_mib=1", "pool.prefill.emulation.prefill_tokens_per_s=4000")
    with serving(place / f"source{number.value}", EMULATED, *sets, key=KEY) as deployment:
        sink, gateway = deployment.pid("decode-0"), deployment.pid("gateway")
        async with crowding(deployment, "prefill-0") as crowd:
            await crowd.until(lambda report: sum(report.handoffs.values()) >= 4)
            os.kill(sink, signal.SIGSTOP)
            full = await crowd.until(lambda report: report.handoffs.get("source_sealed", 0) >= 3)
            assert full.blocks.live >= 60
            said = len(deployment.output.lines)
            for pid in (gateway, sink):
                os.kill(pid, number)
            after = await crowd.until(is_whole, LEASE_S + GRACE_S)
            if number is signal.SIGSTOP:
                assert num_given_up(after) >= num_given_up(full) + 3
                for pid in (gateway, sink):
                    os.kill(pid, signal.SIGKILL)
        for name in ("gateway", "decode-0"):
            await asyncio.to_thread(deployment.wait_restarted, name, said)
        await serves_again(deployment, demo_model)
