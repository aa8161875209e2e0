"""Chat Completions and models as the openai SDK and raw HTTP see them."""

import asyncio
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.house import EOS, House, chat_body, chunks, post, raw_exchange
from twinfer.core.errors import CapacityError, DeadlineExceeded, EngineFailure, TwinferError, WorkerLost
from twinfer.core.request import GenerationRequest
from twinfer.core.route import RouteKind
from twinfer.core.tokens import FinishReason
from twinfer.gateway.fake import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
PATH = "/v1/chat/completions"
USER: Any = [{"role": "user", "content": "hi"}]


def json_schema(schema: Any) -> Any:
    """An answer held to a schema."""
    return {"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": schema}}


async def complete(house: House, **fields: Any) -> Any:
    """What the SDK returns."""
    async with house.openai() as client:
        return await client.chat.completions.create(**{"model": MODEL, "messages": USER, **fields})


async def stream(house: House, **fields: Any) -> list[Any]:
    """All chunks that the SDK returns."""
    async with house.openai() as client:
        chunks = await client.chat.completions.create(model=MODEL, messages=USER, stream=True, **fields)
        return [chunk async for chunk in chunks]


async def refused(house: House, body: Any) -> tuple[int, Any]:
    """Status and error of a raw request."""
    response = await house.http.post(PATH, content=body if isinstance(body, bytes) else msgspec.json.encode(body))
    return response.status_code, response.json()["error"]


@pytest.mark.parametrize("prefix", ["/v1", "/openai/v1"])
async def test_a_completion_under_both_prefixes(house: House, prefix: str) -> None:
    """Text, reason, usage with cached tokens as a part of the prompt's, and the journey."""
    house.says("Hello world", cached_tokens=2)
    async with house.openai(prefix) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=USER)
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    choice = answer.choices[0]
    assert (choice.message.content, choice.message.role, choice.finish_reason) == ("Hello world", "assistant", "stop")
    assert choice.logprobs is None
    prompt, output = len(house.dispatcher.generations[0].request.prompt), len(house.ids("Hello world")) + 1
    usage = answer.usage
    assert (prompt, output, prompt + output) == (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    assert usage.prompt_tokens_details.cached_tokens == 2
    assert answer.model_extra["twinfer"]["route"] == "disaggregated"
    assert answer.id.startswith("chatcmpl-")
    assert answer.id.endswith(answer._request_id)


async def test_a_stream_adds_up_to_the_completion(house: House) -> None:
    """Role first, then text, one finish reason, and the journey on the last chunk; the SDK sees the end."""
    house.says("Hello 東京 world")
    got = await stream(house)
    assert (got[0].choices[0].delta.role, got[0].choices[0].delta.content) == ("assistant", "")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in got) == "Hello 東京 world"
    assert [reason for chunk in got if (reason := chunk.choices[0].finish_reason)] == ["stop"]
    assert got[-1].choices[0].finish_reason == "stop"
    assert [False] * (len(got) - 1) + [True] == ["twinfer" in chunk.model_extra for chunk in got]
    assert len({chunk.id for chunk in got}) == 1


async def test_a_stream_tells_its_usage_when_asked(house: House) -> None:
    """In one more chunk without choices; all others say null, and the mark of the end comes last."""
    body = chat_body(MODEL, stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    response = await house.http.post(PATH, json=body)
    *others, last, done = chunks(response.content)
    plain = (await house.http.post(PATH, json=chat_body(MODEL))).json()
    assert (last["choices"], last["usage"], last["twinfer"]) == ([], plain["usage"], plain["twinfer"])
    assert [None] * len(others) == [chunk["usage"] for chunk in others]
    assert [chunk for chunk in others if "twinfer" in chunk] == []
    assert done == "[DONE]"
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-twinfer-route"] == "disaggregated"


def two_answers(house: House) -> Any:
    """A script per choice."""

    def script(request: GenerationRequest) -> Script:
        text = ("first", "the second")[request.choice]
        return Script([*([i] for i in house.ids(text)), [EOS]])

    return script


async def test_n_answers_keep_apart(house: House) -> None:
    """Each has its index; the prompt is counted once; requests differ in choice and id and share the seed."""
    house.plays(two_answers(house))
    answer = await complete(house, n=2)
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [(0, "first"), (1, "the second")]
    requests = [generation.request for generation in house.dispatcher.generations]
    assert [request.choice for request in requests] == [0, 1]
    assert len({request.request_id for request in requests}) == 2
    assert len({(request.prompt, request.sampling.seed) for request in requests}) == 1
    assert answer.usage.prompt_tokens == len(requests[0].prompt)
    texts = ["", ""]
    for chunk in await stream(house, n=2):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["first", "the second"]


async def test_one_failing_answer_fails_all(house: House) -> None:
    """The others are cancelled: a part of what was asked is not an answer."""
    forever = asyncio.Event()

    def script(request: GenerationRequest) -> Script:
        if request.choice == 1:
            return Script([], failure=EngineFailure("Broken."))
        return Script([[5], [6]], gates={1: forever})

    house.plays(script)
    with pytest.raises(openai.InternalServerError, match="Broken"):
        await complete(house, n=2)
    assert house.all_closed


async def test_stop_strings_and_lengths_give_their_reasons(house: House) -> None:
    """Alone or in a list; the string itself is not part of the text."""
    house.plays(Script([house.ids("aENDb"), [EOS]]))
    for stop in ("END", ["x", "END"]):
        choice = (await complete(house, stop=stop)).choices[0]
        assert (choice.message.content, choice.finish_reason) == ("a", "stop")
    for limit in ("max_tokens", "max_completion_tokens"):
        answer = await complete(house, **{limit: 1})
        assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 1)
    house.plays(Script([[5, 6]], finish=FinishReason.CONTEXT))
    assert (await complete(house)).choices[0].finish_reason == "length"


async def test_logprobs_stand_beside_their_tokens(house: House) -> None:
    """One entry per token of the text, whose bytes add up to it; as many alternatives as asked for."""
    house.says("naïve 東京")
    answer = await complete(house, logprobs=True, top_logprobs=2)
    entries = answer.choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == "naïve 東京"
    assert [(-0.5, 2)] * len(entries) == [(entry.logprob, len(entry.top_logprobs)) for entry in entries]
    streamed = [
        entry
        for chunk in await stream(house, logprobs=True, top_logprobs=2)
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content
    ]
    assert entries == streamed
    assert [[]] * len(entries) == [
        entry.top_logprobs for entry in (await complete(house, logprobs=True)).choices[0].logprobs.content
    ]


async def test_options_reach_the_workers(house: House) -> None:
    """OpenAI's own and the customary extras."""
    await complete(
        house,
        temperature=1.5,
        top_p=0.5,
        seed=-1,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"7": 100},
        max_tokens=9,
        max_completion_tokens=8,
        extra_body={
            "top_k": -1,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "ignore_eos": True,
            "min_tokens": 4,
            "cache_salt": "mine",
        },
    )
    request = house.dispatcher.generations[0].request
    sampling, stopping = request.sampling, request.stopping
    assert (
        sampling.temperature,
        sampling.top_p,
        sampling.seed,
        sampling.presence_penalty,
        sampling.frequency_penalty,
    ) == (1.5, 0.5, 2**63 - 1, 0.5, -0.5)
    assert (
        sampling.logit_bias,
        sampling.top_k,
        sampling.min_p,
        sampling.repetition_penalty,
    ) == ({7: 100.0}, 0, 0.1, 1.1)
    assert (stopping.max_tokens, stopping.min_tokens, stopping.stop_token_ids) == (8, 4, ())
    assert (request.deadline_s, request.cache_salt) == (600.0, "mine")


async def test_both_apis_make_the_same_prompt(house: House) -> None:
    """A conversation is the same tokens through either door."""
    await complete(
        house,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": "d"},
        ],
    )
    body = {
        "system": [{"text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"text": "a"}]},
            {"role": "user", "content": [{"text": "b"}]},
            {"role": "assistant", "content": [{"text": "c"}]},
            {"role": "user", "content": [{"text": "d"}]},
        ],
    }
    await house.http.post(f"/model/{MODEL}/converse", json=body)
    ours, theirs = (generation.request.prompt for generation in house.dispatcher.generations)
    assert ours == theirs


FAILURES: list[tuple[TwinferError, type[openai.APIStatusError], int, str]] = [
    (CapacityError("Full.", 1.5), openai.InternalServerError, 503, "capacity_exhausted"),
    (WorkerLost("Gone."), openai.InternalServerError, 503, "worker_lost"),
    (DeadlineExceeded("Late."), openai.APIStatusError, 408, "deadline_exceeded"),
    (EngineFailure("Broken."), openai.InternalServerError, 500, "engine_failure"),
]


@pytest.mark.parametrize(("error", "cls", "status", "code"), FAILURES)
async def test_failures_raise_the_sdk_s_classes(
    house: House, error: TwinferError, cls: type[openai.APIStatusError], status: int, code: str
) -> None:
    """By status before the first token; inside the stream as an error event, after which nothing ends cleanly."""
    house.plays(Script([], failure=error))
    with pytest.raises(cls) as caught:
        await stream(house)
    assert (status, code) == (caught.value.status_code, caught.value.code)
    house.plays(Script([house.ids("Hel")], failure=error))
    with pytest.raises(openai.APIError, match=str(error)):
        await stream(house)
    raw = await raw_exchange(house.address, post(PATH, chat_body(MODEL, stream=True)))
    assert code.encode() in raw
    assert b"[DONE]" not in raw
    assert not raw.endswith(b"0\r\n\r\n")
    assert house.all_closed


async def test_refusals_raise_the_sdk_s_classes(house: House) -> None:
    """Unknown model, bad value, overflow, forbidden: each has its class, parameter and code."""
    with pytest.raises(openai.NotFoundError) as missing:
        await complete(house, model="nobody")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        await complete(house, temperature=3)
    assert (bad.value.param, bad.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as long:
        await complete(house, messages=[{"role": "user", "content": "word " * 1000}])
    assert long.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages.0.tool_call_id"),
        ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
        ({"model": ""}, "model"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1000": 1}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"service_tier": "golden"}, "service_tier"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": json_schema({"type": "number", "minimum": 1})}, "response_format.json_schema.schema"),
        ({"response_format": json_schema({"enum": ["a"], "type": "null"})}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_object"}, "min_tokens": 3}, "min_tokens"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"seed": 2**70}, "seed"),
        ({"max_tokens": True}, "max_tokens"),
    ],
)
async def test_every_complaint_names_its_place(house: House, fields: dict[str, Any], where: str) -> None:
    """400, and the parameter."""
    status, error = await refused(house, chat_body(MODEL) | fields)
    assert (400, "invalid_request_error", where) == (status, error["type"], error["param"])


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "modalities": ["text"]},
        {"user": "u", "metadata": {}, "store": True, "prompt_cache_key": "k", "reasoning_effort": "low"},
        {"stop": None, "temperature": None, "stream": False, "stream_options": None, "service_tier": "auto"},
        {"chat_template_kwargs": {"enable_thinking": False}, "unheard_of": {"x": 1}},
    ],
)
async def test_what_asks_for_nothing_special_is_accepted(house: House, fields: dict[str, Any]) -> None:
    """Empty containers, nulls, defaults and what other servers know do no harm."""
    assert (await house.http.post(PATH, json=chat_body(MODEL) | fields)).status_code == 200


async def test_models_are_listed_and_found(house: House) -> None:
    """By the SDK, under any name for one of them."""
    async with house.openai() as client:
        listed = [model async for model in client.models.list()]
        assert [(model.id, model.owned_by, model.object) for model in listed] == [(MODEL, "Twinfer", "model")]
        assert (await client.models.retrieve("meta.llama3-1-8b-instruct-v1:0")).id == MODEL
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nobody")


async def test_the_route_can_be_forced(house: House) -> None:
    """By header; other words are the client's mistake."""
    headers = {"x-twinfer-route": "aggregated"}
    answer = await complete(house, extra_headers=headers)
    assert (answer.model_extra["twinfer"]["route"], answer.model_extra["twinfer"]["prefill_worker"]) == (
        "aggregated",
        None,
    )
    assert house.dispatcher.forced == [RouteKind.AGGREGATED]
    with pytest.raises(openai.BadRequestError, match="must be aggregated or disaggregated"):
        await complete(house, extra_headers={"x-twinfer-route": "sideways"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    *("messages", "n", "stop", "seed", "logprobs", "top_logprobs", "stream", "stream_options", "logit_bias"),
    *("temperature", "max_tokens", "tools", "tool_choice", "response_format", "chat_template_kwargs", "min_tokens"),
]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4), whole=st.booleans())
async def test_no_body_is_our_fault(house: House, fields: dict[str, Any], whole: bool) -> None:
    """Whatever a client sends, it is answered or refused as its own mistake."""
    body = chat_body(MODEL) | fields if whole else fields
    response = await house.http.post(PATH, content=msgspec.json.encode(body))
    assert response.status_code in (200, 400)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(body=st.binary(max_size=40) | json_values.map(msgspec.json.encode))
async def test_no_bytes_are_our_fault(house: House, body: bytes) -> None:
    """Malformed JSON is a 400 like everything else that is malformed, never a 422."""
    assert (await refused(house, body))[0] == 400
