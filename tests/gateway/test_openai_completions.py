"""Completions as the openai SDK and its types see them."""

import itertools
from typing import Any

import msgspec
import pytest

from tests.gateway import openai_shape
from tests.gateway.house import House
from twinfer.core.errors import EngineFailure
from twinfer.core.request import GenerationRequest
from twinfer.gateway.fake import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
PATH = "/v1/completions"


async def post(house: House, **fields: Any) -> Any:
    """A raw request."""
    return await house.http.post(PATH, content=msgspec.json.encode({"model": MODEL, "prompt": "Once", **fields}))


@pytest.mark.parametrize("prefix", ["/v1", "/openai/v1"])
async def test_a_prompt_is_continued_as_it_is(house: House, prefix: str) -> None:
    """No template: its tokens, and the tokenizer's own special ones at most; 16 tokens unless more are asked for."""
    house.says("upon a time")
    async with house.openai(prefix) as client:
        answer = await client.completions.create(model=MODEL, prompt="Once")
    assert (answer.object, answer.choices[0].text, answer.choices[0].finish_reason) == (
        "text_completion",
        "upon a time",
        "stop",
    )
    request = house.dispatcher.generations[0].request
    assert request.prompt == house.model.tokenizer.encode("Once", add_special_tokens=True)
    assert request.stopping.max_tokens == 16
    openai_shape.completion((await post(house)).content)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        (["Once", "Twice"], ["Once", "Twice"]),
        ([[7, 8, 9], [10, 11]], [(7, 8, 9), (10, 11)]),
        ([7, 8, 9], [(7, 8, 9)]),
    ],
)
async def test_many_prompts(house: House, prompt: Any, texts: list[Any]) -> None:
    """Each gets n choices, numbered through; token ids are taken as they are; usage is over all."""

    def echo(request: GenerationRequest) -> Script:
        return Script([[request.prompt[-1]], [1]])

    house.plays(echo)
    body = openai_shape.completion((await post(house, prompt=prompt, n=2)).content)
    assert [choice["index"] for choice in body["choices"]] == list(range(2 * len(texts)))
    encode = house.model.tokenizer.encode
    ids = [encode(text, add_special_tokens=True) if isinstance(text, str) else text for text in texts]
    asked = [generation.request.prompt for generation in house.dispatcher.generations]
    assert asked == [prompt for prompt in ids for _ in range(2)]
    assert body["usage"]["prompt_tokens"] == sum(map(len, ids))
    assert body["usage"]["completion_tokens"] == 2 * 2 * len(texts)


async def test_streamed(house: House) -> None:
    """Text, the reason, the usage, and the mark; with ``echo`` the prompt comes first."""
    house.says("upon a time")
    fields: dict[str, Any] = {"stream": True, "echo": True, "stream_options": {"include_usage": True}}
    chunks = openai_shape.completion_chunks((await post(house, **fields)).content)
    assert "Onceupon a time" == "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][-1] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == len(house.ids("upon a time")) + 1
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_logprobs_stand_side_by_side(house: House) -> None:
    """As many offsets, probabilities and alternatives as tokens; the offsets cut the text into the tokens."""
    house.says("Hello world")
    body = openai_shape.completion((await post(house, logprobs=2)).content)
    choice = body["choices"][0]
    logprobs = choice["logprobs"]
    cuts = [*logprobs["text_offset"], len(choice["text"])]
    assert logprobs["tokens"] == [choice["text"][a:b] for a, b in itertools.pairwise(cuts)]
    assert len(logprobs["token_logprobs"]) == len(logprobs["tokens"]) == len(logprobs["top_logprobs"])
    assert {len(top) for top in logprobs["top_logprobs"]} == {2}
    chunks = openai_shape.completion_chunks((await post(house, logprobs=2, stream=True)).content)
    told = [choice["logprobs"] for chunk in chunks for choice in chunk["choices"] if choice["logprobs"]]
    assert logprobs["tokens"] == [token for part in told for token in part["tokens"]]
    assert logprobs["text_offset"] == [offset for part in told for offset in part["text_offset"]]


async def test_a_failure_in_the_stream_has_no_mark_of_an_end(house: House) -> None:
    """An error event, and the connection breaks."""
    house.plays(Script([[40]], failure=EngineFailure("worker decode-0 failed")))
    with pytest.raises(Exception, match=r"incomplete|closed"):
        await post(house, stream=True)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [["a"]]}, "prompt.0.0"),
        ({"prompt": [-1]}, "prompt.0"),
        ({"prompt": [10**9]}, "prompt"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"logprobs": 6}, "logprobs"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"stream_options": {}}, "stream_options"),
    ],
)
async def test_every_complaint_names_its_place(house: House, fields: dict[str, Any], where: str) -> None:
    """400, and the parameter."""
    response = await post(house, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", where)
