from dataclasses import replace
from typing import Any

import pytest
from starlette.datastructures import Headers, QueryParams

from tests.gateway.house import caller
from tests.gateway.templates import HERMES
from twinfer.core.clock import ManualClock
from twinfer.core.config import Config, GatewayConfig, RoutingConfig
from twinfer.core.errors import ContextOverflow, Forbidden, InvalidRequest
from twinfer.core.route import RouteKind
from twinfer.gateway.exchange import Call, Context, Work
from twinfer.gateway.fake import FakeDispatcher, Script
from twinfer.gateway.metering import Meter
from twinfer.gateway.models import ModelRegistry, SamplingDefaults, ServedModel
from twinfer.gateway.prepare import Asked, Options, count, forced_route, prepare, prepare_each
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.gateway.text.conversation import Calling, Conversation, Prompt, RawPrompt, Tool, say
from twinfer.gateway.text.formats.hermes import Hermes
from twinfer.gateway.text.manner import Manner

CALL = Call("id", caller("acme"), "", Headers(), QueryParams(), b"", secure=False, arrived_s=0.0)
HELLO = Conversation((say("user", "hello"),))


def context(model: ServedModel) -> Context:
    """Where this model is served."""
    return Context(
        Config(gateway=GatewayConfig(request_timeout_s=7)),
        ModelRegistry([model]),
        FakeDispatcher(lambda request: Script([])),
        Meter(),
        ManualClock(),
    )


async def prepared(model: ServedModel, prompt: Prompt = HELLO, **options: Any) -> Work:
    """Work for these options."""
    return await prepare(CALL, context(model), Asked(model.id, prompt, Options(**options)))


async def test_a_request_carries_tenant_deadline_and_a_choice_each(model: ServedModel) -> None:
    """All that the workers know of who asked, and for how long."""
    work = await prepared(model, n=2)
    assert [(request.tenant, request.deadline_s, request.request_id, request.choice) for request in work.requests] == [
        ("acme", 7, "id/0", 0),
        ("acme", 7, "id/1", 1),
    ]


async def test_the_model_s_defaults_fill_what_is_not_said(model: ServedModel) -> None:
    """Zero is said; absent is not. Seeds differ from call to call unless given."""
    model = replace(model, defaults=SamplingDefaults(temperature=0.3, top_k=5, repetition_penalty=1.2))
    said = (await prepared(model, temperature=0.0, top_k=0)).requests[0].sampling
    assert (said.temperature, said.top_k, said.repetition_penalty) == (0.0, 0, 1.2)
    silent = (await prepared(model)).requests[0].sampling
    assert (silent.temperature, silent.top_k, silent.top_p) == (0.3, 5, 1.0)
    assert said.seed != silent.seed


async def test_the_answer_never_outgrows_the_context(model: ServedModel) -> None:
    """What is left is the default and the most; whether the limit was the client's is remembered."""
    prompt = len((await prepared(model)).requests[0].prompt)
    room = model.max_context_tokens - prompt
    for asked, granted, fills in ((None, room, True), (room, room, False), (room + 1, room, True), (1, 1, False)):
        work = await prepared(model, max_tokens=asked)
        assert (granted, fills) == (work.requests[0].stopping.max_tokens, work.choices[0].fills_context)
    assert (await prepared(model, max_tokens=3, min_tokens=9)).requests[0].stopping.min_tokens == 3


async def test_the_prompt_must_leave_room_for_one_token(model: ServedModel) -> None:
    """A prompt as long as the context cannot be answered."""
    prompt = len((await prepared(model)).requests[0].prompt)
    exact = replace(model, max_context_tokens=prompt)
    with pytest.raises(ContextOverflow, match=f"maximum context length is {prompt} tokens"):
        await prepared(exact)
    assert (await prepared(replace(model, max_context_tokens=prompt + 1))).requests[0].stopping.max_tokens == 1


async def test_an_empty_prompt_is_refused(model: ServedModel) -> None:
    """A base model without a first token has nothing to go on."""
    with pytest.raises(InvalidRequest, match="prompt is empty"):
        await prepared(replace(model, template=None), Conversation((say("user", ""),)))


@pytest.mark.parametrize("options", [{"stop_token_ids": (1000,)}, {"logit_bias": {1000: 1.0}}])
async def test_token_ids_must_be_the_model_s(model: ServedModel, options: dict[str, Any]) -> None:
    """An engine would index past its logits."""
    with pytest.raises(InvalidRequest, match="names token 1000, but this model's token ids are below 1000"):
        await prepared(model, **options)


async def test_a_count_is_what_an_answer_reports(model: ServedModel) -> None:
    """Whatever kind of prompt it is, and however long."""
    model = replace(model, template=ChatTemplate(HERMES, {}), manner=Manner(Hermes()))
    forced = Conversation(HELLO.messages, (Tool("f", "", {}),), Calling.ANY, "f")
    for prompt in (HELLO, forced, replace(forced, calling=Calling.AUTO), RawPrompt("hello"), RawPrompt((5, 6))):
        request = (await prepared(model, prompt)).requests[0]
        assert len(request.prompt) == await count(CALL, context(model), Asked(model.id, prompt))
    assert await count(CALL, context(replace(model, max_context_tokens=1)), Asked(model.id, RawPrompt((5, 6)))) == 2


async def test_token_ids_are_taken_as_they_are(model: ServedModel) -> None:
    """Unless the model has none of that number."""
    assert (7, 8, 9) == (await prepared(model, RawPrompt((7, 8, 9)))).requests[0].prompt
    with pytest.raises(InvalidRequest, match="prompt names token 1000"):
        await prepared(model, RawPrompt((7, 1000)))
    with pytest.raises(InvalidRequest, match="prompt is empty"):
        await prepared(model, RawPrompt(()))


async def test_choices_of_several_prompts_are_numbered_through(model: ServedModel) -> None:
    """Each prompt as often as its own options say, and no number twice."""
    each = (Asked(model.id, RawPrompt((7,)), Options(n=2)), Asked(model.id, RawPrompt((8,))))
    work = await prepare_each(CALL, context(model), each)
    assert [((7,), 0, "id/0"), ((7,), 1, "id/1"), ((8,), 2, "id/2")] == [
        (request.prompt, request.choice, request.request_id) for request in work.requests
    ]


def test_only_the_two_modes_can_be_forced() -> None:
    """And only where the operator allows it."""
    assert forced_route({}, RoutingConfig(allow_forced=False)) is None
    assert RouteKind.AGGREGATED is forced_route({"x-twinfer-route": "aggregated"}, RoutingConfig())
    with pytest.raises(InvalidRequest, match="must be aggregated or disaggregated"):
        forced_route({"x-twinfer-route": ""}, RoutingConfig())
    with pytest.raises(Forbidden, match="does not let clients choose the route"):
        forced_route({"x-twinfer-route": "aggregated"}, RoutingConfig(allow_forced=False))
