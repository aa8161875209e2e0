"""A real worker becomes ten times slower: others get its requests, and it gets some again when it has recovered."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import openai

from tests.e2e.clients import chat, openai_client
from tests.e2e.deployment import Deployment, serving

MODEL = "twinfer.demo-v1:0"
TWO = 'pool=[{name="both",role="both",workers=2}]'
SLOW, QUICK = "both-0", "both-1"
NUM_TOKENS = 24
PERIOD_S, RUNS_S = 0.05, 0.005
USUAL_S, NOTICE_S, AWAY_S, RECOVERY_S = 5.0, 5.0, 8.0, 40.0


@contextlib.contextmanager
def running_a_tenth_of_the_time(pid: int) -> Iterator[None]:
    """Stop a process nine tenths of the time."""
    over = Event()

    def stop_and_go() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            over.wait(PERIOD_S - RUNS_S)
            os.kill(pid, signal.SIGCONT)
            over.wait(RUNS_S)

    thread = Thread(target=stop_and_go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def served_by(client: openai.AsyncOpenAI, number: int) -> str:
    """Ask once; which worker decoded."""
    heard = await chat(client, MODEL, f"def function_{number}(x):", NUM_TOKENS, ignore_eos=True)
    return str(heard.journey["decode_worker"])


async def pairs(client: openai.AsyncOpenAI, seconds: float, first: int, until: str = "") -> list[str]:
    """Two requests at a time for so long, or until a worker served one; who served them."""
    workers: list[str] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and (not until or until not in workers):
        numbers = (first + len(workers), first + len(workers) + 1)
        workers += await asyncio.gather(*(served_by(client, number) for number in numbers))
    return workers


async def compare(deployment: Deployment) -> None:
    """The course of it."""
    async with openai_client(deployment.url) as client:
        assert {SLOW, QUICK} == set(await pairs(client, USUAL_S, 0))
        with running_a_tenth_of_the_time(deployment.pid(SLOW)):
            await pairs(client, NOTICE_S, 10_000)
            meanwhile = await pairs(client, AWAY_S, 20_000)
        assert meanwhile.count(SLOW) <= 2 + 0.2 * len(meanwhile)
        assert SLOW in await pairs(client, RECOVERY_S, 30_000, until=SLOW)


async def test_a_slow_worker_is_avoided_and_used_again(place: Path):
    """Five seconds after it became slow it is tried now and then at most; recovered, it is used again."""
    with serving(place / "slow", "", TWO) as deployment:
        await compare(deployment)
