"""Rule R7: in fp32 a greedy answer is the same, token by token, whichever way it takes through the cluster."""

import itertools
import json

import pytest
import pytest_asyncio

from tests.e2e.clients import Heard, bedrock_client, chat, openai_client
from tests.e2e.conftest import CHUNK_TOKENS, DEMO, SOURCE
from tests.e2e.deployment import Deployment
from twinfer.chaos.oracle import wrong_text
from twinfer.gateway.models import ServedModel
from twinfer.gateway.text.conversation import Conversation, say

BLOCK = 16
NUM_OUTPUT = 24
SIZES = (5, BLOCK, BLOCK + 1, CHUNK_TOKENS, CHUNK_TOKENS + 1, 5 * CHUNK_TOKENS + 7)
"""Where chunks and blocks begin and end."""


def prompt_of(model: ServedModel, num_tokens: int, start: int) -> str:
    """The part of a source file from ``start`` on that makes a prompt of exactly so many tokens."""
    for end in itertools.count(start):
        text = f"# {start}\n{SOURCE[start:end]}"
        if len(model.prompt(Conversation((say("user", text),)))) == num_tokens:
            return text
        assert end < len(SOURCE), f"no prompt of {num_tokens} tokens from {start} on"
    raise AssertionError


@pytest.fixture(scope="module")
def prompts(demo_model: ServedModel) -> dict[int, str]:
    """A prompt of each size, no two with the same beginning."""
    return {size: prompt_of(demo_model, size, 700 * index) for index, size in enumerate(SIZES)}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def expected(demo_alone: Deployment, prompts: dict[int, str]) -> dict[int, Heard]:
    """The reference: each prompt alone, on one worker, nothing cached."""
    async with openai_client(demo_alone.url) as client:
        found = {size: await chat(client, DEMO, prompt, NUM_OUTPUT) for size, prompt in prompts.items()}
    assert {(heard.route, heard.journey["cached_tokens"]) for heard in found.values()} == {("aggregated", 0)}
    return found


@pytest.mark.parametrize("transport", ["shm", "tcp"])
async def test_split_and_whole(
    transport: str, request: pytest.FixtureRequest, prompts: dict[int, str], expected: dict[int, Heard]
):
    """A prompt computed elsewhere and handed over gives the same answer, from the first block to the last position."""
    deployment: Deployment = request.getfixturevalue("demo" if transport == "shm" else "demo_tcp")
    async with openai_client(deployment.url) as client:
        for size, prompt in prompts.items():
            split = await chat(client, DEMO, prompt, NUM_OUTPUT, route="disaggregated")
            assert (split.route, split.journey["cached_tokens"]) == ("disaggregated", 0)
            assert wrong_text(expected[size].drawn, split.drawn, epsilon=0) is None
            whole = await chat(client, DEMO, prompt, NUM_OUTPUT, route="aggregated")
            assert (whole.route, split.text, split.finish) == ("aggregated", whole.text, whole.finish)
            assert wrong_text(expected[size].drawn, whole.drawn, epsilon=0) is None


async def test_every_door(demo: Deployment, demo_model: ServedModel, prompts: dict[int, str]):
    """Converse, its stream, and native bodies with the turn or with the text that its template makes of it."""
    prompt = prompts[5 * CHUNK_TOKENS + 7]
    assert demo_model.template is not None
    raw = demo_model.template.render(Conversation((say("user", prompt),)), str)
    turn = [{"role": "user", "content": [{"text": prompt}]}]
    limits = {"maxTokens": NUM_OUTPUT, "temperature": 0}
    async with openai_client(demo.url) as client:
        expected = await chat(client, DEMO, prompt, NUM_OUTPUT)
    with bedrock_client(demo.url) as client:
        whole = client.converse(modelId=DEMO, messages=turn, inferenceConfig=limits)
        events = list(client.converse_stream(modelId=DEMO, messages=turn, inferenceConfig=limits)["stream"])
        bodies = [
            {"prompt": raw, "max_gen_len": NUM_OUTPUT, "temperature": 0, "top_p": 1},
            {"prompt": raw, "max_tokens": NUM_OUTPUT, "temperature": 0},
            {"messages": [{"role": "user", "content": prompt}], "max_tokens": NUM_OUTPUT, "temperature": 0},
            {"messages": turn, "inferenceConfig": limits},
        ]
        answers = [client.invoke_model(modelId=DEMO, body=json.dumps(body)) for body in bodies]
        llama, mistral, completion, nova = [json.loads(answer["body"].read()) for answer in answers]
        counted = client.count_tokens(modelId=DEMO, input={"converse": {"messages": turn}})["inputTokens"]
    texts = [
        whole["output"]["message"]["content"][0]["text"],
        "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event),
        llama["generation"],
        mistral["outputs"][0]["text"],
        completion["choices"][0]["message"]["content"],
        nova["output"]["message"]["content"][0]["text"],
    ]
    assert [expected.text] * len(texts) == texts
    usage = whole["usage"]
    assert expected.usage.prompt_tokens == counted == llama["prompt_token_count"]
    assert expected.usage.prompt_tokens == usage["inputTokens"] + usage["cacheReadInputTokens"]
    assert expected.usage.completion_tokens == llama["generation_token_count"] == usage["outputTokens"]


@pytest.mark.parametrize("route", ["aggregated", "disaggregated"])
async def test_second_turn(demo: Deployment, demo_alone: Deployment, demo_model: ServedModel, route: str):
    """A conversation's second turn finds the first one's KV, on whichever side, and answers as if it had not."""
    first = prompt_of(demo_model, 3 * CHUNK_TOKENS + 5, 6000 if route == "aggregated" else 9000)
    async with openai_client(demo.url) as client, openai_client(demo_alone.url) as alone:
        answer = await chat(client, DEMO, first, NUM_OUTPUT, route="disaggregated")
        turns = [
            {"role": "user", "content": first},
            {"role": "assistant", "content": answer.text},
            {"role": "user", "content": "\n\n\ndef dedent_twice(text):\n"},
        ]
        again = await chat(client, DEMO, turns, NUM_OUTPUT, route=route)
        reference = await chat(alone, DEMO, turns, NUM_OUTPUT)
    assert again.route == route
    assert again.usage.prompt_tokens_details.cached_tokens == again.journey["cached_tokens"] >= 3 * CHUNK_TOKENS
    assert reference.journey["cached_tokens"] == 0
    assert wrong_text(reference.drawn, again.drawn, epsilon=0) is None
