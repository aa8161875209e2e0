"""More clients than a decode pool has room for: they wait, or are told when to come back."""

import asyncio
from pathlib import Path

import openai

from tests.e2e.clients import Heard, chat, openai_client
from tests.e2e.deployment import Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID, expected_tokens
from twinfer.gateway.models import ServedModel

NUM_CLIENTS = 24
NUM_OUTPUT = 12
SMALL = ("pool.decode.kv_mib=1", "pool.decode.emulation.num_layers=4", "pool.prefill.emulation.num_layers=4")
"""128 blocks for decoding: room for about six of the prompts below."""


def text(number: int) -> str:
    """A prompt of some twenty blocks that shares nothing with the others."""
    return f"{number} " + f"client {number} wants room " * 40


async def ask_all(deployment: Deployment) -> list[Heard | BaseException]:
    """What each of the clients hears; all ask at once."""
    async with openai_client(deployment.url) as client:
        calls = (
            chat(client, EMULATED_ID, text(number), NUM_OUTPUT, route="disaggregated", ignore_eos=True)
            for number in range(NUM_CLIENTS)
        )
        return await asyncio.gather(*calls, return_exceptions=True)


def is_right(model: ServedModel, number: int, heard: Heard) -> bool:
    """Whether an answer is the one that follows from its prompt."""
    return expected_tokens(model, text(number), NUM_OUTPUT, num_layers=4) == heard.tokens


async def test_they_wait(place: Path, demo_model: ServedModel):
    """With patience everybody gets the right answer, however small the pool."""
    with serving(place / "patient", EMULATED, *SMALL, "handoff.max_busy_s=60") as deployment:
        answers = await ask_all(deployment)
        assert [answer for answer in answers if isinstance(answer, BaseException)] == []
        assert all(is_right(demo_model, number, answer) for number, answer in enumerate(answers))
        await asyncio.to_thread(deployment.wait_idle)


async def test_they_are_sent_away(place: Path, demo_model: ServedModel):
    """Past ``handoff.max_busy_s`` the rest hears 503 with the time to come back after; the others are not disturbed."""
    sets = ("handoff.max_busy_s=0.6", "pool.decode.emulation.decode_step_ms=200")
    with serving(place / "impatient", EMULATED, *SMALL, *sets) as deployment:
        answers = await ask_all(deployment)
        turned_away = [answer for answer in answers if isinstance(answer, BaseException)]
        assert 0 < len(turned_away) < NUM_CLIENTS
        for error in turned_away:
            assert isinstance(error, openai.InternalServerError)
            assert (error.status_code, error.code) == (503, "capacity_exhausted")
            assert int(error.response.headers["retry-after"]) >= 1
            assert int(error.response.headers["retry-after-ms"]) >= 1
            assert "decode-0 has no free capacity" in error.message
        served = [(number, answer) for number, answer in enumerate(answers) if isinstance(answer, Heard)]
        assert all(is_right(demo_model, number, answer) for number, answer in served)
        await asyncio.to_thread(deployment.wait_idle)
