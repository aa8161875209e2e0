"""A real worker becomes twenty times slower: others get its requests, and it gets some again when it has recovered.

How many seconds that takes is the simulator's to say, whose clock no other process disturbs; here it is requests.
"""

import asyncio
import contextlib
import os
import signal
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
PERIOD_S, RUNS_S = 0.1, 0.005
FEW, MANY = 20, 40
"""Requests in which it is learned what a worker is like, and in which it shows that this is known."""


@contextlib.contextmanager
def running_a_twentieth_of_the_time(pid: int) -> Iterator[None]:
    """Stop a process nineteen twentieths of the time: as much slower it is where it would have a core for itself."""
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


async def pairs(client: openai.AsyncOpenAI, count: int, first: int, *until: str) -> list[str]:
    """So many requests, two at a time, and more until each of these workers served one; who served them."""
    workers: list[str] = []
    while len(workers) < count or not {*until} <= {*workers}:
        numbers = (first + len(workers), first + len(workers) + 1)
        workers += await asyncio.gather(*(served_by(client, number) for number in numbers))
    return workers


async def compare(deployment: Deployment) -> None:
    """The course of it."""
    async with openai_client(deployment.url) as client:
        await pairs(client, FEW, 0, SLOW, QUICK)
        with running_a_twentieth_of_the_time(deployment.pid(SLOW)):
            await pairs(client, FEW, 10_000)
            meanwhile = await pairs(client, MANY, 20_000)
        assert 3 * meanwhile.count(SLOW) <= MANY
        await pairs(client, 0, 30_000, SLOW)


async def test_a_slow_worker_is_avoided_and_used_again(place: Path):
    """When it has shown that it is slow, it is tried now and then at most; recovered, it is used again."""
    with serving(place / "slow", "", TWO) as deployment:
        await compare(deployment)
