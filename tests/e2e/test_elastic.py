"""Real workers change their roles under load, and real gateways die under load; every answer is the right one."""

import asyncio
import contextlib
import os
import secrets
import signal
import time
from pathlib import Path

import httpx
import openai

from tests.e2e import processes
from tests.e2e.clients import Heard, chat, openai_client
from tests.e2e.deployment import WAIT_S, Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID, expected_tokens
from twinfer.gateway.models import ServedModel

BOTH = ("prefill", "decode")
FOUR = (
    *(f"pool.{name}.workers=2" for name in BOTH),
    *(f"pool.{name}.emulation.prefill_tokens_per_s=2000" for name in BOTH),
    *(f"pool.{name}.emulation.decode_step_ms=20" for name in BOTH),
)
ELASTIC = (
    "elastic.enabled=true",
    "elastic.prefill_tokens=400",
    "elastic.decode_requests=6",
    "elastic.window_s=0.5",
    "elastic.cooldown_s=2.0",
)
NUM_CLIENTS = 24


class Crowd:
    """Clients that ask one thing after the other, each prompt its own, until they are told to stop."""

    def __init__(self, url: str, kind: str, num_words: int, num_tokens: int) -> None:
        self.answers: list[tuple[str, Heard]] = []
        self.broken = 0
        self._url, self._kind = url, kind
        self._num_words, self._num_tokens = num_words, num_tokens
        self._enough = False
        self._clients = [asyncio.create_task(self._ask(number)) for number in range(NUM_CLIENTS)]

    async def end(self) -> None:
        """Return when the last answers are there."""
        self._enough = True
        await asyncio.gather(*self._clients)

    async def has(self, num_answers: int) -> None:
        """Return when so many answers are there."""
        deadline = time.monotonic() + WAIT_S
        while len(self.answers) < num_answers:
            assert time.monotonic() < deadline, f"{len(self.answers)} of {num_answers} answers"
            await asyncio.sleep(0.02)

    def check(self, model: ServedModel) -> int:
        """How many answers there are; fails when one is wrong."""
        for prompt, heard in self.answers:
            assert expected_tokens(model, prompt, self._num_tokens) == heard.tokens
        return len(self.answers)

    async def _ask(self, number: int) -> None:
        index = 0
        async with openai_client(self._url) as client:
            while not self._enough:
                prompt = f"{self._kind} {number} {index} " + "word " * self._num_words
                index += 1
                try:
                    heard = await chat(client, EMULATED_ID, prompt, self._num_tokens, ignore_eos=True)
                except (openai.APIConnectionError, httpx.TransportError):  # a status of 500 or more is a failure
                    self.broken += 1
                else:
                    self.answers.append((prompt, heard))


async def test_roles_follow_the_load(place: Path, demo_model: ServedModel):
    """Prompts, then answers: a worker goes to where the work is and back, and no request is lost or wrong."""
    with serving(place / "e", EMULATED, *FOUR, *ELASTIC) as deployment:
        prompts = Crowd(deployment.url, "long", 300, 2)
        await asyncio.to_thread(deployment.wait_for, lambda scrape: list(scrape.roles.values()).count("prefill") == 3)
        await prompts.has(NUM_CLIENTS + 1)
        await prompts.end()
        answers = Crowd(deployment.url, "short", 70, 60)
        await asyncio.to_thread(deployment.wait_for, lambda scrape: list(scrape.roles.values()).count("decode") == 3)
        await answers.has(NUM_CLIENTS + 1)
        await answers.end()
        assert (prompts.broken, answers.broken) == (0, 0)
        assert min(prompts.check(demo_model), answers.check(demo_model)) > NUM_CLIENTS
        await asyncio.to_thread(deployment.wait_idle)
        took = [
            float(line.rpartition("since ")[2].split()[0]) for line in deployment.output.lines if "serves as" in line
        ]
        print(f"{len(took)} changes of role took {took} s; {len(prompts.answers) + len(answers.answers)} answers")
        assert len(took) >= 2


async def test_a_gateway_dies(place: Path, demo_model: ServedModel):
    """Each of two gateways is killed in turn: its clients lose their connection, all answers are right, all ends."""
    with serving(place / "g", EMULATED, *FOUR, "gateway.count=2") as deployment:
        crowd = Crowd(deployment.url, "some", 80, 20)
        await asyncio.to_thread(deployment.wait_for, lambda scrape: scrape.of("decode-0", "running") > 0)
        pids = [pid for pid in deployment.pids if processes.module_of(pid) == "twinfer.gateway"]
        assert len(pids) == 2
        for pid in pids:
            said = len(deployment.output.lines)
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(deployment.output.wait_for, r"gateway(-1)? was killed by SIGKILL", said)
            await crowd.has(len(crowd.answers) + NUM_CLIENTS)
            await asyncio.to_thread(deployment.output.wait_for, r"gateway(-1)?: ready", said)
        await crowd.end()
        assert crowd.check(demo_model) >= 2 * NUM_CLIENTS
        assert 0 < crowd.broken <= 2 * NUM_CLIENTS
        await asyncio.to_thread(deployment.wait_idle)
        print(f"{len(crowd.answers)} right answers, {crowd.broken} broken connections")


async def test_a_worker_leaves(place: Path, demo_model: ServedModel):
    """A worker that gets SIGTERM under load ends by itself; the others go on with what it had, and nothing is lost."""
    with serving(place / "l", EMULATED, *FOUR, "handoff.drain_s=0.2") as deployment:
        crowd = Crowd(deployment.url, "some", 80, 60)
        await asyncio.to_thread(deployment.wait_for, lambda scrape: scrape.of("decode-1", "running") > 0)
        said = deployment.kill("decode-1", signal.SIGTERM)
        await asyncio.to_thread(deployment.output.wait_for, "decode-1 ended with exit code 0; starting it again", said)
        await asyncio.to_thread(deployment.wait_for, lambda scrape: scrape.of("decode-1", "running") > 0)
        await crowd.end()
        assert (crowd.broken, crowd.check(demo_model) >= NUM_CLIENTS) == (0, True)
        await asyncio.to_thread(deployment.wait_idle)


async def test_a_worker_joins_and_leaves(place: Path, demo_model: ServedModel):
    """One that is started by hand stands in the registry, takes its share, and leaves on SIGTERM; nothing is lost."""
    key, registry, hand = secrets.token_bytes(32), place / "registry", place / "hand"
    for directory in (registry, hand):
        directory.mkdir(mode=0o700)
    where = f'registry="{registry}"'
    config = hand / "hand.toml"
    config.write_text(EMULATED)
    with serving(place / "j", EMULATED, *FOUR, where, "handoff.drain_s=0.2", key=key) as deployment:
        words = ["worker", "--config", str(config), "--pool", "decode", "--index", "7", "--listen", "127.0.0.1:0"]
        sets = [word for override in (*FOUR, where, "handoff.drain_s=0.2") for word in ("--set", override)]
        crowd = Crowd(deployment.url, "some", 80, 60)
        with contextlib.ExitStack() as stack:
            worker = Deployment(hand, [*words, *sets], {"TWINFER_CLUSTER_KEY": key.hex()})
            stack.callback(worker.destroy)
            await asyncio.to_thread(deployment.wait_for, lambda scrape: scrape.of("decode-7", "running") > 0)
            assert await asyncio.to_thread(worker.stop) == 0
            assert "Traceback" not in worker.output.text
        await crowd.has(len(crowd.answers) + NUM_CLIENTS)
        assert "decode-7" not in deployment.scrape().roles
        await crowd.end()
        assert (crowd.broken, crowd.check(demo_model) > NUM_CLIENTS) == (0, True)
        await asyncio.to_thread(deployment.wait_idle)
