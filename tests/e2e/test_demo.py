"""A deployment of the demo model, through the clients that people use."""

import inspect
import json
import textwrap

import httpx

from tests.e2e.clients import bedrock_client, chat, openai_client
from tests.e2e.conftest import DEMO
from tests.e2e.deployment import Deployment
from tests.e2e.series import Scrape
from twinfer.gateway.models import ServedModel
from twinfer.gateway.text.conversation import Conversation, say
from twinfer.model.checkpoint import locate

SOURCE = inspect.getsource(textwrap.dedent)
HALF = SOURCE[: len(SOURCE) // 2]
SHAPE = json.loads((locate("demo") / "config.json").read_text())
BLOCK_BYTES = 2 * SHAPE["num_hidden_layers"] * SHAPE["num_key_value_heads"] * SHAPE["head_dim"] * 4 * 16
"""K and V, layers, heads, elements of 4 bytes, 16 tokens."""


def num_prompt_tokens(model: ServedModel, text: str) -> int:
    """Length of the prompt that a single turn makes."""
    return len(model.prompt(Conversation((say("user", text),))))


def test_converse_stream(demo_tcp: Deployment, demo_model: ServedModel):
    """boto3 streams an answer over two workers: its events are in order, and the accounts are right."""
    before = at_rest(demo_tcp)
    prompt = f"# Converse\n{HALF}"
    with bedrock_client(demo_tcp.url) as client:
        response = client.converse_stream(
            modelId=DEMO,
            messages=[{"role": "user", "content": [{"text": prompt}]}],
            inferenceConfig={"maxTokens": 24, "temperature": 0},
        )
        events = list(response["stream"])
    kinds = [next(iter(event)) for event in events]
    assert kinds[0] == "messageStart"
    assert set(kinds[1:-3]) == {"contentBlockDelta"}
    assert kinds[-3:] == ["contentBlockStop", "messageStop", "metadata"]
    assert len("".join(event["contentBlockDelta"]["delta"]["text"] for event in events[1:-3])) > 0
    assert response["ResponseMetadata"]["HTTPHeaders"]["x-twinfer-route"] == "disaggregated"
    num_input, num_output = num_prompt_tokens(demo_model, prompt), 24
    usage = events[-1]["metadata"]["usage"]
    if events[-2]["messageStop"]["stopReason"] == "end_turn":
        num_output = usage["outputTokens"]
    assert usage == {
        "inputTokens": num_input,
        "outputTokens": num_output,
        "totalTokens": num_input + num_output,
        "cacheReadInputTokens": 0,
        "cacheWriteInputTokens": 0,
    }
    check_phases(before, at_rest(demo_tcp), num_input, num_output)


async def test_chat_completions_stream(demo_tcp: Deployment, demo_model: ServedModel):
    """openai streams an answer over two workers: its usage is right, and it says where its time went."""
    before = at_rest(demo_tcp)
    prompt = f"# Chat\n{HALF}"
    async with openai_client(demo_tcp.url) as client:
        heard = await chat(client, DEMO, prompt, 24)
    num_input, num_output = num_prompt_tokens(demo_model, prompt), heard.usage.completion_tokens
    assert heard.route == "disaggregated"
    assert heard.finish == "stop" or num_output == 24
    assert heard.usage.prompt_tokens == num_input
    assert heard.text == b"".join(heard.tokens).decode(errors="replace")
    check_phases(before, at_rest(demo_tcp), num_input, num_output)
    times = {name: value for name, value in heard.journey.items() if name.endswith("_ms")}
    assert set(times) == {"queue_ms", "reserve_ms", "fetch_ms", "prefill_ms", "exposed_transfer_ms", "decode_ms"}
    assert min(times.values()) >= 0
    assert min(times["reserve_ms"], times["prefill_ms"], times["decode_ms"]) > 0
    rest = {name: value for name, value in heard.journey.items() if not name.endswith("_ms")}
    assert rest == {
        "route": "disaggregated",
        "reason": "the prompt has at least 64 uncached tokens",
        "prefill_worker": "prefill-0",
        "decode_worker": "decode-0",
        "cached_tokens": 0,
        "transfer_bytes": -(-num_input // 16) * BLOCK_BYTES,
    }


def at_rest(deployment: Deployment) -> Scrape:
    """The accounts when everything has ended: a client may hear its last token before a worker counts a handoff."""
    deployment.wait_idle()
    return deployment.scrape()


def check_phases(before: Scrape, after: Scrape, num_input: int, num_output: int) -> None:
    """The prefill worker computed the prompt and the decode worker all tokens but the first, and neither more."""

    def grown(worker: str, name: str) -> float:
        return after.of(worker, f"{name}_total") - before.of(worker, f"{name}_total")

    assert after.roles == {"prefill-0": "prefill", "decode-0": "decode"}
    assert grown("prefill-0", "prefill_tokens") == num_input
    assert grown("prefill-0", "decode_tokens") == 0
    assert grown("decode-0", "prefill_tokens") == 0
    assert grown("decode-0", "decode_tokens") == num_output - 1
    assert grown("prefill-0", "handoffs_out") == grown("decode-0", "handoffs_in") == 1
    assert grown("decode-0", "kv_bytes_in") == -(-num_input // 16) * BLOCK_BYTES


def test_probes(demo: Deployment):
    """A ready deployment says so, and lists its model."""
    assert httpx.get(f"{demo.url}/healthz").text == "ok\n"
    assert httpx.get(f"{demo.url}/readyz").text == "ready\n"
    assert [model["id"] for model in httpx.get(f"{demo.url}/v1/models").json()["data"]] == [DEMO]
