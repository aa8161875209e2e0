"""How a deployment ends: running answers finish, new ones are refused, and nothing is left."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.clients import finish, openai_client, opened
from tests.e2e.deployment import WAIT_S, Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID

SLOW = "pool.decode.emulation.decode_step_ms=25"
NUM_OUTPUT = 40
ENDLESS = 3000
"""Tokens that take more than a minute: a stream that ends before has been broken."""
AT_ONCE_S = 30.0
PROMPT = "What becomes of this answer? " * 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_drain(place: Path, number: signal.Signals):
    """A running stream is heard to its end, nobody new is let in, and then everything ends with code 0."""
    with serving(place / number.name, EMULATED, SLOW) as deployment:
        async with openai_client(deployment.url) as client:
            stream = await opened(client, EMULATED_ID, PROMPT, NUM_OUTPUT, ignore_eos=True)
            deployment.process.send_signal(number)
            await asyncio.to_thread(deployment.output.wait_for, "stopping: running requests may finish")
            await asyncio.to_thread(deployment.output.wait_for, "gateway: Shutting down")
            with pytest.raises(openai.APIConnectionError):
                async with openai_client(deployment.url) as late:
                    await opened(late, EMULATED_ID, PROMPT, NUM_OUTPUT)
            heard = await finish(stream)
        assert (len(heard.drawn), heard.finish) == (NUM_OUTPUT, "length")
        assert await asyncio.to_thread(deployment.process.wait, WAIT_S) == 0
        deployment.check_nothing_left()


async def test_a_second_signal_does_not_wait(place: Path):
    """Whoever presses Ctrl-C twice has no deployment any more; the running stream breaks."""
    with serving(place / "twice", EMULATED, SLOW) as deployment:
        async with openai_client(deployment.url) as client:
            stream = await opened(client, EMULATED_ID, PROMPT, ENDLESS, ignore_eos=True)
            deployment.process.send_signal(signal.SIGINT)
            await asyncio.to_thread(deployment.output.wait_for, "a second signal ends them at once")
            await asyncio.to_thread(deployment.output.wait_for, "gateway: Shutting down")
            deployment.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(deployment.process.wait, AT_ONCE_S) == 0
            with pytest.raises((openai.APIError, httpx.RemoteProtocolError)):
                await finish(stream)
        deployment.check_nothing_left()


async def test_parent_killed(place: Path):
    """Children whose parent was killed notice it by themselves and end within seconds; a running stream breaks.

    Its empty directory is removed by the next deployment.
    """
    with serving(place / "orphans", EMULATED, SLOW, "handoff.max_busy_s=1") as deployment:
        async with openai_client(deployment.url) as client:
            stream = await opened(client, EMULATED_ID, PROMPT, ENDLESS, ignore_eos=True)
            assert len(deployment.children) == 3
            deployment.process.kill()
            deployment.process.wait()
            with pytest.raises((openai.APIError, httpx.RemoteProtocolError)):
                await finish(stream)
        await asyncio.to_thread(deployment.check_nothing_left, AT_ONCE_S, orphaned=True)
    for path in (place / "orphans").glob("twinfer-*"):
        os.utime(path, (0, 0))
    with serving(place / "orphans", EMULATED) as deployment:
        assert len(list(deployment.directory.glob("twinfer-*"))) == 1


def test_stopped_while_loading(place: Path):
    """A signal before anything is ready ends it at once, with nothing left."""
    (place / "early").mkdir()
    deployment = Deployment(place / "early", ["serve", "--port", "0"])
    try:
        deployment.output.wait_for("reading the checkpoint|importing torch")
        assert deployment.stop() == 0
        assert "serves" not in deployment.output.text
        assert "Traceback" not in deployment.output.text
    finally:
        deployment.destroy()
