"""Converse and ConverseStream as boto3 and raw HTTP see them."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError, EventStreamError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.house import EOS, House, converse_body, frames, post, raw_exchange
from tests.gateway.output_shape import MODELS, check_event
from twinfer.core.errors import (
    CapacityError,
    DeadlineExceeded,
    EngineFailure,
    IntegrityError,
    ModelNotReady,
    TwinferError,
    WorkerLost,
)
from twinfer.core.route import RouteKind
from twinfer.core.tokens import FinishReason
from twinfer.gateway.fake import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
PATH = f"/model/{MODEL}/converse"
USER = [{"role": "user", "content": [{"text": "hi"}]}]
SERVICE = MODELS["bedrock-runtime"]


async def converse(house: House, model: str = MODEL, **fields: Any) -> dict[str, Any]:
    """What boto3 returns."""
    arguments = {"modelId": model, "messages": USER, **fields}
    return await asyncio.to_thread(lambda: house.boto3().converse(**arguments))


async def converse_stream(house: House, **fields: Any) -> list[dict[str, Any]]:
    """All events that boto3 returns."""
    arguments = {"modelId": MODEL, "messages": USER, **fields}

    def read() -> list[dict[str, Any]]:
        with contextlib.closing(house.boto3().converse_stream(**arguments)["stream"]) as stream:
            return list(stream)

    return await asyncio.to_thread(read)


async def refused(house: House, body: Any, path: str = PATH, **headers: str) -> tuple[int, str, str]:
    """Status, exception and message of a raw request."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    response = await house.http.post(path, content=content, headers=headers)
    assert response.json()["__type"] == response.headers["x-amzn-errortype"]
    return response.status_code, response.headers["x-amzn-errortype"], response.json()["message"]


async def test_an_answer_has_everything_boto3_s_model_asks_for(house: House) -> None:
    """All required members, one member in every union, totals that add up."""
    house.says("Hello world", cached_tokens=2)
    answer = await converse(house)
    metadata = answer.pop("ResponseMetadata")
    assert answer["output"]["message"] == {"role": "assistant", "content": [{"text": "Hello world"}]}
    prompt = len(house.dispatcher.generations[0].request.prompt)
    tokens = len(house.ids("Hello world")) + 1
    assert answer["usage"] == {
        "inputTokens": prompt - 2,
        "outputTokens": tokens,
        "totalTokens": prompt + tokens,
        "cacheReadInputTokens": 2,
        "cacheWriteInputTokens": 0,
    }
    assert answer["stopReason"] == "end_turn"
    assert answer["metrics"]["latencyMs"] >= 0
    assert metadata["RequestId"] == metadata["HTTPHeaders"]["x-request-id"]
    assert {"performanceConfig", "serviceTier", "additionalModelResponseFields"}.isdisjoint(answer)


@pytest.mark.parametrize(
    "name",
    [
        "us.twinfer.tiny-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/twinfer.tiny-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.meta.llama3-1-8b-instruct-v1:0",
    ],
)
async def test_names_with_slashes_and_colons_find_their_model(house: House, name: str) -> None:
    """boto3 percent-encodes them into one path segment."""
    assert (await converse(house, name))["output"]["message"]["content"][0]["text"] == "Hello world"


async def test_unencoded_names_find_their_model_too(house: House) -> None:
    """Other clients send colons and slashes as they are."""
    arn = "arn:aws:bedrock:us-east-1::foundation-model/twinfer.tiny-v1:0"
    response = await raw_exchange(
        house.address,
        post(f"/model/{arn}/converse", converse_body()).replace(
            b"host: gateway", b"host: gateway\r\nconnection: close"
        ),
    )
    assert response.startswith(b"HTTP/1.1 200")


async def test_unknown_models_are_worded_as_aws_does(house: House) -> None:
    """Clients match this text; a well-formed ARN of nothing is another error."""
    assert await refused(house, converse_body(), "/model/foo.bar-v1:0/converse") == (
        400,
        "ValidationException",
        "The provided model identifier is invalid.",
    )
    arn = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fabc123"
    status, code, _ = await refused(house, converse_body(), f"/model/{arn}/converse")
    assert (status, code) == (404, "ResourceNotFoundException")


async def test_a_stream_s_events_are_boto3_s(house: House) -> None:
    """In order, none of them empty-handed, no contentBlockStart for text, and the text is Converse's."""
    house.says("Hello 東京 world")
    events = await converse_stream(house)
    names = [next(iter(event)) for event in events]
    assert [name for name in names if name != "contentBlockDelta"] == [
        "messageStart",
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
    for event in events:
        ((name, payload),) = event.items()
        check_event(SERVICE.operation_model("ConverseStream"), name, payload)
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    assert (text, events[-2]["messageStop"]) == ("Hello 東京 world", {"stopReason": "end_turn"})
    assert (await converse(house))["usage"] == events[-1]["metadata"]["usage"]


async def test_an_empty_answer_still_has_its_block(house: House) -> None:
    """Clients index the first content block without looking."""
    house.plays(Script([[EOS]]))
    assert (await converse(house))["output"]["message"]["content"] == [{"text": ""}]
    names = [next(iter(event)) for event in await converse_stream(house)]
    assert names == ["messageStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"]


async def test_a_stop_sequence_ends_the_text_and_is_reported_on_request(house: House) -> None:
    """Its text and what follows are not sent; output tokens are those up to it; the workers are told to stop."""
    house.plays(Script([house.ids("aENDb"), house.ids("never seen"), [EOS]]))
    fields = {
        "inferenceConfig": {"stopSequences": ["END"]},
        "additionalModelResponseFieldPaths": ["/stop_sequence", "/absent"],
    }
    answer = await converse(house, **fields)
    assert answer["output"]["message"]["content"][0]["text"] == "a"
    assert (
        answer["stopReason"],
        answer["additionalModelResponseFields"],
    ) == ("stop_sequence", {"stop_sequence": "END"})
    *_, stop, _ = await converse_stream(house, **fields)
    assert stop["messageStop"] == {
        "stopReason": "stop_sequence",
        "additionalModelResponseFields": {"stop_sequence": "END"},
    }
    assert house.all_closed


async def test_lengths_have_their_own_stop_reasons(house: House) -> None:
    """The client's limit, and the context's end, are not the same to it."""
    answer = await converse(house, inferenceConfig={"maxTokens": 3})
    assert (answer["stopReason"], answer["usage"]["outputTokens"]) == ("max_tokens", 3)
    house.plays(Script([[5, 6]], finish=FinishReason.CONTEXT))
    assert (await converse(house))["stopReason"] == "model_context_window_exceeded"
    house.plays(Script([[5] * 600]))
    answer = await converse(house)
    assert (answer["stopReason"], answer["usage"]["totalTokens"]) == ("model_context_window_exceeded", 512)


async def test_service_choices_are_echoed_as_served(house: House) -> None:
    """A client that chose learns what it got: low latency where there is a pool, reserved where it has a share."""
    chosen = {"performanceConfig": {"latency": "optimized"}, "serviceTier": {"type": "priority"}}
    for fast, latency in ((set(), "standard"), ({house.model.id}, "optimized")):
        house.dispatcher.fast = fast
        answer = await converse(house, **chosen)
        assert (answer["performanceConfig"], answer["serviceTier"]) == ({"latency": latency}, {"type": "priority"})
        metadata = (await converse_stream(house, **chosen))[-1]["metadata"]
        assert (metadata["performanceConfig"], metadata["serviceTier"]) == ({"latency": latency}, {"type": "priority"})
    answer = await converse(house, serviceTier={"type": "reserved"})
    assert answer["serviceTier"] == {"type": "default"}
    assert "performanceConfig" not in answer


async def test_sampling_reaches_the_workers(house: House) -> None:
    """Converse's own names and the native extras end up in one request; the model's defaults fill the rest."""
    await converse(
        house,
        inferenceConfig={"temperature": 0.5, "topP": 0.25, "maxTokens": 7},
        additionalModelRequestFields={"top_k": 3, "seed": 11, "stop_token_ids": [9], "logit_bias": {"4": -1}},
    )
    request = house.dispatcher.generations[0].request
    sampling = request.sampling
    assert (
        sampling.temperature,
        sampling.top_p,
        sampling.top_k,
        sampling.seed,
        sampling.logit_bias,
    ) == (0.5, 0.25, 3, 11, {4: -1.0})
    assert (request.stopping.stop_token_ids, request.stopping.max_tokens) == ((EOS, 9), 7)
    await converse(house, additionalModelRequestFields={"ignore_eos": True})
    request = house.dispatcher.generations[1].request
    assert (1.0, 1.0, (), 512 - len(request.prompt)) == (
        request.sampling.temperature,
        request.sampling.top_p,
        request.stopping.stop_token_ids,
        request.stopping.max_tokens,
    )


async def test_the_journey_is_told(house: House) -> None:
    """Header and body say which way it went; forcing the mode is passed on."""
    for kind in RouteKind:
        response = await house.http.post(PATH, json=converse_body(), headers={"x-twinfer-route": kind.value})
        assert kind.value == response.headers["x-twinfer-route"] == response.json()["twinfer"]["route"]
        stream = await house.http.post(PATH + "-stream", json=converse_body(), headers={"x-twinfer-route": kind.value})
        assert kind.value == stream.headers["x-twinfer-route"]
        assert response.json()["twinfer"] == frames(stream.content)[-1][1]["twinfer"]
    assert [kind for kind in RouteKind for _ in range(2)] == house.dispatcher.forced
    assert response.json()["twinfer"] == {
        "route": "disaggregated",
        "reason": "as the script says",
        "prefill_worker": "prefill-0",
        "decode_worker": "decode-0",
        "queue_ms": 1.0,
        "reserve_ms": 2.0,
        "fetch_ms": 0.0,
        "prefill_ms": 3.0,
        "exposed_transfer_ms": 4.0,
        "decode_ms": 5.0,
        "cached_tokens": 0,
        "transfer_bytes": 1024,
    }


FAILURES: Sequence[tuple[TwinferError, int, str, str]] = [
    (CapacityError("Full.", 1.5), 503, "ServiceUnavailableException", "serviceUnavailableException"),
    (WorkerLost("Gone."), 503, "ServiceUnavailableException", "serviceUnavailableException"),
    (DeadlineExceeded("Late."), 408, "ModelTimeoutException", "modelStreamErrorException"),
    (EngineFailure("Broken."), 424, "ModelErrorException", "modelStreamErrorException"),
    (IntegrityError("Bad bytes."), 500, "InternalServerException", "internalServerException"),
]


@pytest.mark.parametrize(("error", "status", "name", "in_stream"), FAILURES)
async def test_failures_before_the_first_token_are_http_errors(
    house: House, error: TwinferError, status: int, name: str, in_stream: str
) -> None:
    """Plain or streamed, the client sees a status it can act on, and when to come back."""
    house.plays(Script([], failure=error))
    for path in (PATH, PATH + "-stream"):
        assert (status, name, str(error)) == await refused(house, converse_body(), path)
    if isinstance(error, CapacityError):
        headers = (await house.http.post(PATH, json=converse_body())).headers
        names = ("x-amz-retry-after", "retry-after-ms", "retry-after")
        assert [headers[name] for name in names] == ["1500", "1500", "2"]
    assert house.all_closed


@pytest.mark.parametrize(("error", "status", "name", "in_stream"), FAILURES)
async def test_failures_in_the_stream_break_it(
    house: House, error: TwinferError, status: int, name: str, in_stream: str
) -> None:
    """boto3 raises with the exception's name after the text that came; never does the stream end as if whole."""
    house.plays(Script([house.ids("Hel"), house.ids("lo")], failure=error))
    with pytest.raises(EventStreamError) as caught:
        await converse_stream(house)
    assert (in_stream, str(error)) == (
        caught.value.response["Error"]["Code"],
        caught.value.response["Error"]["Message"],
    )
    raw = await raw_exchange(house.address, post(PATH + "-stream", converse_body()))
    assert in_stream.encode() in raw
    assert b"metadata" not in raw
    assert not raw.endswith(b"0\r\n\r\n")
    assert house.all_closed


@pytest.mark.parametrize("error", [CapacityError("Full.", 0.01), ModelNotReady("Loading.", 0.01), WorkerLost("Gone.")])
async def test_boto3_comes_again_when_it_may_work(house: House, error: TwinferError) -> None:
    """No room, still loading, or a worker lost: each is an invitation, and the second time there is an answer."""
    scripts = iter([Script([], failure=error), Script([house.ids("yes"), [EOS]])])
    house.plays(lambda request: next(scripts))
    client = house.boto3(attempts=3)
    answer = await asyncio.to_thread(lambda: client.converse(modelId=MODEL, messages=USER))
    assert answer["output"]["message"]["content"][0]["text"] == "yes"
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1


async def test_a_long_prompt_is_refused_in_words_clients_know(house: House) -> None:
    """Both phrases by which clients recognise an overflow are in it."""
    status, code, message = await refused(house, converse_body("word " * 30_000))
    assert (status, code) == (400, "ValidationException")
    assert "Input is too long for requested model. This model's maximum context length is 512 tokens" in message
    assert house.dispatcher.generations == []


async def test_boto3_raises_its_modelled_exceptions(house: House) -> None:
    """Code and class come from the header."""
    client = house.boto3()
    with pytest.raises(client.exceptions.ValidationException, match="temperature"):
        await asyncio.to_thread(
            lambda: client.converse(modelId=MODEL, messages=USER, inferenceConfig={"temperature": 1.5})
        )
    with pytest.raises(ClientError, match="must start with a user message"):
        await converse(house, messages=[{"role": "assistant", "content": [{"text": "I begin."}]}])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted(SERVICE.operation_model("Converse").input_shape.members)
INNER = [
    "text",
    "role",
    "content",
    "maxTokens",
    "stopSequences",
    "latency",
    "type",
    "tools",
    "textFormat",
    "logit_bias",
]
nested = st.dictionaries(st.sampled_from(INNER), json_values, max_size=3)
bodies = st.dictionaries(st.sampled_from(FIELDS), json_values | nested | st.lists(nested, max_size=2), max_size=4)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(body=bodies, valid=st.booleans())
async def test_no_body_is_our_fault(house: House, body: dict[str, Any], valid: bool) -> None:
    """Whatever a client sends, it is answered or refused as its own mistake."""
    body = {**body, **converse_body()} if valid else body
    response = await house.http.post(PATH, content=msgspec.json.encode(body))
    assert response.status_code in (200, 400)
    assert response.status_code == 200 or response.json()["message"]


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(body=st.binary(max_size=40) | json_values.map(msgspec.json.encode))
async def test_no_bytes_are_our_fault(house: House, body: bytes) -> None:
    """Malformed JSON is a 400 like everything else that is malformed."""
    assert (await refused(house, body))[0] == 400
