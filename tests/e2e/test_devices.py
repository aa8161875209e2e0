"""Two devices that are not here, one handing over to the other: the path is real, and so are its accounts."""

import time
from collections.abc import Iterator

import pytest

from tests.e2e.clients import chat, openai_client
from tests.e2e.deployment import Deployment, serving
from tests.fakes import expected_output
from twinfer.cli.emulation import Surroundings, emulated_pair
from twinfer.core.config import EmulationConfig
from twinfer.core.config_text import dump_config
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement, Work
from twinfer.devices.step_time import step_seconds
from twinfer.engine.pacer import MAX_BEHIND_S
from twinfer.gateway.models import ServedModel
from twinfer.gateway.text.conversation import Conversation, say

NUM_TOKENS = 400
SMALL = ("pool.prefill.kv_mib=8", "pool.decode.kv_mib=8")
KV_TOKEN_BYTES = 37008
"""Of gpt-oss-120b in 16 bits, with a share of the windows."""
TEXT = "what is handed over is what was computed " * 20


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Trainium3 and two CS-3 with gpt-oss-120b."""
    config = dump_config(emulated_pair("trn3", "cs3", "gpt-oss-120b"))
    with serving(tmp_path_factory.mktemp("pair"), config, *SMALL) as running:
        yield running


@pytest.fixture(scope="module")
def virtual_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The same with virtual KV."""
    config = dump_config(emulated_pair("trn3", "cs3", "gpt-oss-120b", Surroundings("virtual")))
    with serving(tmp_path_factory.mktemp("virtual"), config, *SMALL) as running:
        yield running


def shortest_decode_s(num_prompt: int, num_output: int) -> float:
    """How long the device takes at least for an answer of so many tokens, after the first one."""
    profile, shape = Catalogue().device("cs3")[0], load_shape()
    step_s = step_seconds(profile, shape, Placement(2, precision="mxfp4"), [Work(1, num_prompt)])
    return (num_output - 1) * step_s - MAX_BEHIND_S


async def test_every_token_follows_from_the_kv_and_none_comes_before_its_time(
    pair: Deployment, demo_model: ServedModel
):
    """The tokens are those of the KV that was handed over, and decode is no faster than the catalogue says."""
    async with openai_client(pair.url) as client:
        began = time.monotonic()  # the gateway's own times say less: it may hear of the first token late
        heard = await chat(client, "gpt-oss-120b", TEXT, NUM_TOKENS, route="disaggregated")
        seen_s = time.monotonic() - began
    prompt = demo_model.prompt(Conversation((say("user", TEXT),)))
    emulation = EmulationConfig(num_layers=1, num_kv_heads=1, head_dim=4, vocab_size=demo_model.vocab_size)
    expected = expected_output(prompt, NUM_TOKENS, emulation, "default")
    assert [demo_model.tokenizer.token_bytes(token) for token in expected][: len(heard.tokens)] == heard.tokens
    assert "disaggregated" == heard.journey["route"]
    assert seen_s >= shortest_decode_s(len(prompt), len(heard.tokens))
    assert "decode emulates 2 x cs3 with gpt-oss-120b in mxfp4" in pair.output.text


async def test_virtual_kv_counts_as_what_it_stands_for(virtual_pair: Deployment, demo_model: ServedModel):
    """The right tokens, all bytes of the model's KV in the accounts, and no sooner here than the link carries them."""
    before = virtual_pair.scrape().of("decode-0", "kv_bytes_in_total")
    async with openai_client(virtual_pair.url) as client:
        heard = await chat(client, "gpt-oss-120b", TEXT, NUM_TOKENS, route="disaggregated")
    prompt = demo_model.prompt(Conversation((say("user", TEXT),)))
    emulation = EmulationConfig(kv="virtual", vocab_size=demo_model.vocab_size)
    expected = expected_output(prompt, NUM_TOKENS, emulation, "default")
    assert [demo_model.tokenizer.token_bytes(token) for token in expected][: len(heard.tokens)] == heard.tokens
    assert "disaggregated" == heard.journey["route"]
    counted = virtual_pair.scrape().of("decode-0", "kv_bytes_in_total") - before
    assert counted == -(-len(prompt) // 16) * 16 * KV_TOKEN_BYTES
    assert "KV travels as over efa-trn3" in virtual_pair.output.text


async def test_the_rate_of_a_stream(virtual_pair: Deployment):
    """A client reads a long answer whole, no sooner than the device has it; the rate is printed, and whether it is a
    good one is the benchmark's to say (bench.streams)."""
    async with openai_client(virtual_pair.url) as client:
        asked = time.perf_counter()
        stream = await client.chat.completions.create(
            model="gpt-oss-120b",
            messages=[{"role": "user", "content": f"Another one: {TEXT}"}],
            max_tokens=2000,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        chunks = [chunk async for chunk in stream]
        took_s = time.perf_counter() - asked
    usage = chunks[-1].usage
    assert usage is not None
    assert 2000 == usage.completion_tokens
    print(f"{2000 / took_s:,.0f} tokens/s in {len(chunks)} events")
    assert took_s >= shortest_decode_s(usage.prompt_tokens, 2000)
