"""Weights change under load, worker by worker: every answer is of one of the two from end to end, and none is lost."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.clients import Heard, chat, finish, openai_client, opened, take
from tests.e2e.conftest import DEMO, SPLIT
from tests.e2e.deployment import Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID, expected_tokens
from tests.e2e.test_elastic import ELASTIC, FOUR, NUM_CLIENTS, Crowd
from twinfer.chaos.oracle import wrong_text
from twinfer.gateway.models import ServedModel
from twinfer.model.checkpoint import locate

POOLS = ("prefill", "decode")
PACE = (
    *(f"pool.{name}.emulation.prefill_tokens_per_s=4000" for name in POOLS),
    *(f"pool.{name}.emulation.decode_step_ms=20" for name in POOLS),
)
NEW_SEED = [word for name in POOLS for word in ("--set", f"pool.{name}.emulation.seed=1")]
NUM_TOKENS = 60


def roll(deployment: Deployment, *words: str) -> subprocess.CompletedProcess[str]:
    """``twinfer roll`` to its end."""
    port = deployment.url.rpartition(":")[2]
    return subprocess.run(
        [sys.executable, "-m", "twinfer", "roll", *words, "--port", port],
        env=os.environ | {"TMPDIR": str(deployment.directory)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def kinds(crowd: Crowd, model: ServedModel, num_tokens: int = NUM_TOKENS) -> dict[int, int]:
    """How many answers were drawn with which seed; fails when one is neither's, or a mixture."""
    found = {0: 0, 1: 0}
    for prompt, heard in crowd.answers:
        seeds = [seed for seed in found if expected_tokens(model, prompt, num_tokens, seed=seed) == heard.tokens]
        assert len(seeds) == 1, prompt
        found[seeds[0]] += 1
    return found


def mirrored(directory: Path) -> Path:
    """The demo model with every logit negated: the sign of its last norm's weights is changed."""
    shutil.copytree(locate("demo"), directory)
    path = directory / "model.safetensors"
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[:8], "little")
    entry = json.loads(content[8 : 8 + size])["model.norm.weight"]
    assert entry["dtype"] == "BF16"
    start, end = (8 + size + offset for offset in entry["data_offsets"])
    for high_byte in range(start + 1, end, 2):
        content[high_byte] ^= 0x80
    path.write_bytes(content)
    return directory


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("workers", "words", "names"),
    [
        (1, [], {"prefill-1", "decode-1"}),
        (2, [], {"prefill-2", "prefill-3", "decode-2", "decode-3"}),
        (2, ["--in-place"], {"prefill-2", "prefill-3", "decode-2", "decode-3"}),
    ],
)
async def test_under_load(
    place: Path, demo_model: ServedModel, workers: int, words: list[str], names: set[str]
) -> None:
    """Beside the old workers, with one of each phase and one gateway or with two, and in place; then a gateway is
    started again, and knows the new ones only."""
    sets = (*PACE, *(f"pool.{name}.workers={workers}" for name in POOLS), f"gateway.count={workers}")
    with serving(place / f"r{workers}{len(words)}", EMULATED, *sets) as deployment:
        crowd = Crowd(deployment.url, "some", 80, NUM_TOKENS)
        await crowd.has(NUM_CLIENTS)
        done = await asyncio.to_thread(roll, deployment, *NEW_SEED, *words)
        assert (done.returncode, done.stderr) == (0, "")
        await crowd.has(len(crowd.answers) + 2 * NUM_CLIENTS)
        await crowd.end()
        drawn = kinds(crowd, demo_model)
        print(f"{workers} + {workers} workers: {drawn[0]} answers of the old weights, {drawn[1]} of the new ones")
        assert (crowd.broken, min(drawn.values()) >= NUM_CLIENTS) == (0, True)
        await asyncio.to_thread(deployment.wait_for, lambda scrape: set(scrape.roles) == names)
        await asyncio.to_thread(deployment.wait_idle, names=names)
        said = deployment.kill("gateway")
        await asyncio.to_thread(deployment.output.wait_for, r"gateway(-1)?: ready", said)
        await asyncio.to_thread(deployment.wait_for, lambda scrape: set(scrape.roles) == names)
        later = Crowd(deployment.url, "later", 80, NUM_TOKENS)
        await later.has(1)
        await later.end()
        assert kinds(later, demo_model)[0] == 0


@pytest.mark.timeout(240)
async def test_in_place_where_roles_change(place: Path, demo_model: ServedModel) -> None:
    """A decode worker computes prompts when it begins: the other one goes last, and roles change again afterwards."""
    with serving(place / "m", EMULATED, *FOUR, *ELASTIC) as deployment:

        def until_prefilling(names: set[str]) -> None:
            deployment.wait_for(
                lambda scrape: set(scrape.roles) == names and list(scrape.roles.values()).count("prefill") == 3
            )

        crowd = Crowd(deployment.url, "long", 300, 2)
        await asyncio.to_thread(until_prefilling, {f"{name}-{index}" for name in POOLS for index in (0, 1)})
        done = await asyncio.to_thread(roll, deployment, *NEW_SEED, "--in-place")
        assert (done.returncode, done.stderr) == (0, "")
        names = {f"{name}-{index}" for name in POOLS for index in (2, 3)}
        await asyncio.to_thread(until_prefilling, names)
        await crowd.has(len(crowd.answers) + NUM_CLIENTS)
        await crowd.end()
        assert (crowd.broken, min(kinds(crowd, demo_model, 2).values()) > 0) == (0, True)
        await asyncio.to_thread(deployment.wait_idle, names=names)


@pytest.mark.timeout(120)
async def test_an_answer_whose_worker_dies_while_it_drains(place: Path, demo_model: ServedModel) -> None:
    """The last one with the old weights: the stream ends with an error, and never goes on with the new ones."""
    with serving(place / "k", EMULATED, *PACE, "handoff.max_busy_s=0.5") as deployment:
        async with openai_client(deployment.url) as client:
            heard, prompt = Heard(), "a long answer"
            stream = await opened(client, EMULATED_ID, prompt, 2000, ignore_eos=True)
            await take(stream, heard, 5)
            rolling = asyncio.create_task(asyncio.to_thread(roll, deployment, *NEW_SEED))
            await asyncio.to_thread(deployment.output.wait_for, "decode-0 takes nothing new")
            await take(stream, heard, len(heard.drawn) + 5)
            deployment.kill("decode-0")
            with pytest.raises(openai.APIError):
                await finish(stream, heard)
            assert (await rolling).returncode == 0
            expected = expected_tokens(demo_model, prompt, len(heard.tokens))
            assert (expected, heard.finish) == (heard.tokens, None)
            again = await chat(client, EMULATED_ID, prompt, 10, ignore_eos=True)
            assert again.tokens == expected_tokens(demo_model, prompt, 10, seed=1)


@pytest.mark.timeout(120)
async def test_goes_back_when_a_worker_does_not_come_up(place: Path, demo_model: ServedModel) -> None:
    """Nothing old goes, the new ones do, and the reason is that of the worker."""
    with serving(place / "b", EMULATED, *PACE) as deployment:
        crowd = Crowd(deployment.url, "some", 80, NUM_TOKENS)
        await crowd.has(1)
        done = await asyncio.to_thread(roll, deployment, *NEW_SEED, "--set", "pool.decode.kv_mib=0")
        assert done.returncode == 2
        assert "twinfer: the weights were not changed: pool decode: kv_mib = 0 holds only 0 blocks" in done.stderr
        await crowd.has(len(crowd.answers) + NUM_CLIENTS)
        await crowd.end()
        assert (crowd.broken, kinds(crowd, demo_model)[1]) == (0, 0)
        assert set(deployment.scrape().roles) == {"prefill-0", "decode-0"}
        await asyncio.to_thread(deployment.wait_idle)


@pytest.mark.timeout(240)
async def test_a_checkpoint(place: Path, tmp_path: Path) -> None:
    """Real weights: broken ones and others' are refused while nothing changes; good ones are served, and then alone."""
    prompts = [f"def function_{number}(a, b):\n    " for number in range(6)]
    new, broken, other = mirrored(tmp_path / "new"), mirrored(tmp_path / "broken"), mirrored(tmp_path / "other")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    tokenizer = other / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    with serving(place / "c", "", *SPLIT) as deployment:
        async with openai_client(deployment.url) as client:

            async def answers() -> list[Heard]:
                return await asyncio.gather(*(chat(client, DEMO, prompt, 24, ignore_eos=True) for prompt in prompts))

            before, during = await answers(), list[list[Heard]]()
            for source, reason in ((broken, "model.safetensors"), (other, "the tokenizers differ")):
                refused = await asyncio.to_thread(roll, deployment, str(source))
                assert (refused.returncode, reason in refused.stderr) == (2, True), refused.stderr
            rolling = asyncio.create_task(asyncio.to_thread(roll, deployment, str(new)))
            while not rolling.done():
                during.append(await answers())
            done = await rolling
            assert (done.returncode, done.stderr) == (0, "")
            after = await answers()
            assert httpx.get(f"{deployment.url}/readyz").status_code == 200
        for old, fresh, *heard in zip(before, after, *during, strict=True):
            assert wrong_text(old.drawn, fresh.drawn) is not None
            both = [(wrong_text(old.drawn, one.drawn), wrong_text(fresh.drawn, one.drawn)) for one in heard]
            assert [pair for pair in both if None not in pair] == []
        print(f"{len(prompts) * len(during)} answers while the weights changed")
