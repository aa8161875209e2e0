"""Deployments other than the default one."""

import contextlib
import json
import secrets
from pathlib import Path

import openai
import pytest

from tests.e2e.clients import chat, openai_client
from tests.e2e.conftest import DEMO
from tests.e2e.deployment import Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID, expected_tokens
from twinfer.gateway.models import ServedModel

PROMPT = "Which of the models answers this question? " * 10

FIRST = "first.model-with-a-name-that-takes-most-of-the-line-of-a-terminal-v1:0"
SECOND = "second.model-v1:0"
TWO_MODELS = f"""
[[model]]
id = "{FIRST}"
aliases = ["meta.llama3-1-8b-instruct-v1:0", "gpt-4o-mini"]

[[model]]
id = "{SECOND}"

[[pool]]
name = "p1"
role = "prefill"
model = "{FIRST}"
engine = "emulated"
kv_mib = 4

[[pool]]
name = "d1"
role = "decode"
model = "{FIRST}"
engine = "emulated"
kv_mib = 4

[[pool]]
name = "all2"
role = "both"
model = "{SECOND}"
engine = "emulated"
kv_mib = 4
emulation = {{script = "I am the second model."}}
"""


async def test_two_models(place: Path, demo_model: ServedModel):
    """Each model is served by its own workers, under its aliases too."""
    with serving(place / "two", TWO_MODELS) as deployment:
        async with openai_client(deployment.url) as client:
            assert [model.id async for model in client.models.list()] == [FIRST, SECOND]
            first = await chat(client, FIRST, PROMPT, 8, ignore_eos=True)
            alias = await chat(client, "gpt-4o-mini", PROMPT, 8, ignore_eos=True)
            second = await chat(client, SECOND, PROMPT, 20)
            with pytest.raises(openai.NotFoundError):
                await chat(client, "third.model-v1:0", PROMPT, 8)
        assert expected_tokens(demo_model, PROMPT, 8) == first.tokens == alias.tokens
        assert (first.journey["prefill_worker"], first.journey["decode_worker"]) == ("p1-0", "d1-0")
        assert (second.text, second.finish) == ("I am the second model.", "stop")
        assert (second.route, second.journey["decode_worker"]) == ("aggregated", "all2-0")
        assert second.journey["prefill_worker"] is None


async def test_one_worker_for_both(demo_alone: Deployment):
    """Without a prefill pool everything is aggregated, and a forced handoff is refused for want of a worker."""
    async with openai_client(demo_alone.url) as client:
        heard = await chat(client, DEMO, PROMPT, 4)
        assert (heard.route, heard.journey["decode_worker"]) == ("aggregated", "whole-0")
        with pytest.raises(openai.InternalServerError, match="no prefill worker") as refused:
            await chat(client, DEMO, PROMPT, 4, route="disaggregated")
        assert refused.value.status_code == 503


async def test_only_worker_restarts(place: Path):
    """While the only worker of a model is away, the model is not unknown: requests wait for it, or are told."""
    config = f'[[model]]\nid = "{EMULATED_ID}"\n[[pool]]\nname = "w"\nrole = "both"\nengine = "emulated"\nkv_mib = 4\n'
    with serving(place / "only", config) as deployment:
        said = deployment.kill("w-0")
        body = {"model": EMULATED_ID, "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 4}
        deployment.output.wait_for("w-0 was killed", said)
        statuses = set()
        while 200 not in statuses:
            statuses.add(deployment.post("/v1/chat/completions", json=body).status_code)
        assert statuses <= {200, 503}
        deployment.wait_restarted("w-0", said)


async def test_workers_started_by_hand(place: Path, demo_model: ServedModel):
    """Workers of other terminals join by address and cluster key, and outlive the server that used them."""
    key = secrets.token_bytes(32)
    config = place / "hand.toml"
    config.write_text(EMULATED)
    with contextlib.ExitStack() as stack:
        workers: dict[str, Deployment] = {}
        addresses = []
        for pool in ("prefill", "decode"):
            directory = place / pool
            directory.mkdir()
            words = ["worker", "--config", str(config), "--pool", pool, "--listen", "127.0.0.1:0"]
            workers[pool] = Deployment(directory, words, {"TWINFER_CLUSTER_KEY": key.hex()})
            stack.callback(workers[pool].destroy)
        for pool, worker in workers.items():
            said = worker.output.wait_for('"stage":"ready"')
            addresses.append(f'pool.{pool}.addresses=["{json.loads(said.string)["address"]}"]')
        for text in (f"A question. {PROMPT}", f"Another question. {PROMPT}"):
            with serving(place / "hand", EMULATED, *addresses, key=key) as deployment:
                assert len(deployment.children) == 1
                async with openai_client(deployment.url) as client:
                    heard = await chat(client, EMULATED_ID, text, 8, ignore_eos=True)
                assert expected_tokens(demo_model, text, 8) == heard.tokens
                assert heard.route == "disaggregated"
                deployment.wait_idle()
        assert {worker.stop() for worker in workers.values()} == {0}
        assert not any("Traceback" in worker.output.text for worker in workers.values())


async def test_incompatible_pair(place: Path, demo_model: ServedModel):
    """A prefill worker whose KV the decode worker does not take computes nothing; the answer comes without it, and from
    the second request on nobody is asked again."""
    with serving(place / "odd", EMULATED, "pool.prefill.kv_dtype=bf16") as deployment:
        async with openai_client(deployment.url) as client:
            for text in (PROMPT, f"Again: {PROMPT}"):
                heard = await chat(client, EMULATED_ID, text, 8, ignore_eos=True)
                assert expected_tokens(demo_model, text, 8) == heard.tokens
                assert heard.route == "aggregated"
        scrape = deployment.scrape()
        assert scrape.of("prefill-0", "prefill_tokens_total") == 0
        assert scrape.of("decode-0", "pairs_refused_total") == 1
        deployment.wait_idle()


async def test_workers_that_differ(place: Path, demo_model: ServedModel):
    """Other blocks and another KV dtype on either side: the prompt is computed on one and converted for the other."""
    differences = (
        "pool.prefill.block_tokens=24",
        "pool.prefill.kv_dtype=bf16",
        "pool.decode.kv_dtype=fp8",
        'pool.decode.accept=["emulated/bf16"]',
    )
    with serving(place / "differ", EMULATED, *differences) as deployment:
        async with openai_client(deployment.url) as client:
            for text in (PROMPT, f"{PROMPT} And again: {PROMPT}"):
                heard = await chat(client, EMULATED_ID, text, 8, ignore_eos=True)
                assert expected_tokens(demo_model, text, 8) == heard.tokens
                assert heard.route == "disaggregated"
        assert deployment.scrape().of("decode-0", "prefill_tokens_total") == 0
        deployment.wait_idle()
