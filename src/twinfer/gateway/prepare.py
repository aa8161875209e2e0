"""From what a client asked, in any dialect, to requests the workers understand."""

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from twinfer.core.config import RoutingConfig
from twinfer.core.errors import ContextOverflow, Forbidden, InvalidRequest
from twinfer.core.ids import RequestId
from twinfer.core.request import GenerationRequest, Grammar, Sampling, Stopping
from twinfer.core.route import RouteKind
from twinfer.core.service import Latency, Tier
from twinfer.gateway.exchange import Call, Choice, Context, Work
from twinfer.gateway.models import Layout, ServedModel
from twinfer.gateway.profiles import find_profile
from twinfer.gateway.readings import ReadingPlan
from twinfer.gateway.service import place
from twinfer.gateway.text.conversation import Prompt, RawPrompt
from twinfer.gateway.text.grammar_text import Written, needs_grammar
from twinfer.gateway.text.stop import StopSet

ROUTE_HEADER = "x-twinfer-route"

_LONG_TEXT = 20_000
"""Characters from which a prompt is tokenised beside the event loop instead of in it (about 10 ms)."""


class Options(msgspec.Struct, frozen=True):
    """How a client wants its answers; what is ``None`` is left to the model's defaults."""

    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    cache_salt: str = ""
    top_logprobs: int | None = None
    n: int = 1
    tier: Tier | None = None
    latency: Latency | None = None


class Asked(msgspec.Struct, frozen=True):
    """A prompt to continue.

    Attributes:
        call_prefix: begins the ids of the tool calls in the answer.
        whole_calls: calls are shown when they are whole, and one that breaks is text. Otherwise their arguments are
            shown while they are written, as streams do; one that breaks then ends the answer, as its ending tells.
    """

    model: str
    prompt: Prompt
    options: Options = Options()
    call_prefix: str = "call_"
    whole_calls: bool = True


def forced_route(headers: Mapping[str, str], routing: RoutingConfig) -> RouteKind | None:
    """The mode that the request's header insists on.

    Raises:
        Forbidden: the operator does not allow that.
        InvalidRequest: there is no such mode.
    """
    wanted = headers.get(ROUTE_HEADER)
    if wanted is None:
        return None
    if not routing.allow_forced:
        raise Forbidden(f"This server does not let clients choose the route; leave out the header {ROUTE_HEADER}.")
    try:
        return RouteKind(wanted)
    except ValueError:
        raise InvalidRequest(
            f"The header {ROUTE_HEADER} must be aggregated or disaggregated.", where=ROUTE_HEADER
        ) from None


async def prepare(call: Call, context: Context, asked: Asked) -> Work:
    """Find the model, tokenise, and apply its limits and defaults.

    Raises:
        RequestError: the model is not here, or cannot do what was asked.
    """
    return await prepare_each(call, context, (asked,))


async def prepare_each(call: Call, context: Context, each: Sequence[Asked]) -> Work:
    """Make one work of several prompts to the same model, at least one; their choices are numbered through.

    Raises:
        RequestError: as for one.
    """
    forced = forced_route(call.headers, context.config.routing)
    profile = find_profile(context.config.profile, each[0].model, call.tenant)
    model = context.models.find(each[0].model if profile is None else profile.model)
    choices: list[Choice] = []
    for asked in each:
        if choices:
            await asyncio.sleep(0)  # between prompts others have their turn
        layout = await _lay_out(model, asked.prompt)
        plan = ReadingPlan(
            model, asked.prompt, layout, StopSet(asked.options.stop), asked.call_prefix, asked.whole_calls
        )
        request, fills_context = _request(call, context, asked, layout, model)
        if (grammar := await _grammar(model, asked, layout)) is not None:
            request = msgspec.structs.replace(request, grammar=grammar)
        for of_prompt in range(asked.options.n):
            number = len(choices)
            own = msgspec.structs.replace(request, request_id=RequestId(f"{call.request_id}/{number}"), choice=number)
            choices.append(Choice(own, plan.open, fills_context, shares_prompt=of_prompt > 0))
    work, options = Work(model, tuple(choices), forced, profile), each[0].options
    tier, latency = (Tier.DEFAULT, Latency.STANDARD) if profile is None else (profile.tier, profile.latency)
    return await place(work, call.tenant, context, options.tier or tier, options.latency or latency)


async def count(call: Call, context: Context, asked: Asked) -> int:
    """The prompt tokens that an answer would report, cached ones included. May be more than the model can take.

    Raises:
        RequestError: the model is not here, or its template refuses the conversation.
    """
    profile = find_profile(context.config.profile, asked.model, call.tenant)
    model = context.models.find(asked.model if profile is None else profile.model)
    return len((await _lay_out(model, asked.prompt)).ids)


def _request(
    call: Call, context: Context, asked: Asked, layout: Layout, model: ServedModel
) -> tuple[GenerationRequest, bool]:
    """What all choices share, and whether only the context bounds the answer's length."""
    options, prompt = asked.options, layout.ids
    _check_token_ids("logit_bias", options.logit_bias, model)
    _check_token_ids("stop_token_ids", options.stop_token_ids, model)
    room = model.max_context_tokens - len(prompt)
    where = "prompt" if isinstance(asked.prompt, RawPrompt) else "messages"
    if not prompt:
        raise InvalidRequest("The prompt is empty; send at least one character of text.", where=where)
    if room < 1:
        raise ContextOverflow(
            f"Input is too long for requested model. This model's maximum context length is {model.max_context_tokens} "
            f"tokens, but the prompt has {len(prompt)}; shorten it.",
            where=where,
        )
    fills_context = options.max_tokens is None or options.max_tokens > room
    max_tokens = room if options.max_tokens is None else min(options.max_tokens, room)
    stopping = Stopping(max_tokens, min(options.min_tokens, max_tokens), _stop_token_ids(options, model))
    request = GenerationRequest(
        request_id=RequestId(call.request_id),
        model=model.id,
        tenant=call.tenant,
        prompt=prompt,
        stopping=stopping,
        sampling=_sampling(options, model),
        top_logprobs=options.top_logprobs,
        cache_salt=options.cache_salt,
        deadline_s=context.config.gateway.request_timeout_s,
        pins=layout.pins,
    )
    return request, fills_context


async def _grammar(model: ServedModel, asked: Asked, layout: Layout) -> Grammar | None:
    """What the answer is held to, if anything; made beside the event loop."""
    prompt, options = asked.prompt, asked.options
    if isinstance(prompt, RawPrompt) or not needs_grammar(prompt):
        return None
    for name, chosen in (("ignore_eos", options.ignore_eos), ("min_tokens", options.min_tokens)):
        if chosen:
            raise InvalidRequest(f"{name} contradicts a schema, which says where an answer ends; leave it out.", name)
    if model.grammars is None:
        raise InvalidRequest("This model's answers cannot be held to a schema; ask for plain text.", where="model")
    written = Written(model.manner, layout.thinking, layout.opening, model.special_marks())
    source = await asyncio.to_thread(model.grammars.write, prompt, written)
    return Grammar(source, model.eos_token_ids)


async def _lay_out(model: ServedModel, prompt: Prompt) -> Layout:
    if isinstance(prompt, RawPrompt) and not isinstance(prompt.content, str):
        _check_token_ids("prompt", prompt.content, model)
    if prompt.num_characters > _LONG_TEXT:
        return await asyncio.to_thread(model.lay_out, prompt)
    return model.lay_out(prompt)


def _check_token_ids(name: str, token_ids: Iterable[int], model: ServedModel) -> None:
    for token_id in token_ids:
        if token_id >= model.vocab_size:
            raise InvalidRequest(
                f"{name} names token {token_id}, but this model's token ids are below {model.vocab_size}.",
                where=name,
            )


def _stop_token_ids(options: Options, model: ServedModel) -> tuple[int, ...]:
    eos = () if options.ignore_eos else model.eos_token_ids
    return tuple(dict.fromkeys((*eos, *options.stop_token_ids)))


def _sampling(options: Options, model: ServedModel) -> Sampling:
    defaults = model.defaults
    return Sampling(
        temperature=defaults.temperature if options.temperature is None else options.temperature,
        top_p=defaults.top_p if options.top_p is None else options.top_p,
        top_k=defaults.top_k if options.top_k is None else options.top_k,
        min_p=defaults.min_p if options.min_p is None else options.min_p,
        seed=secrets.randbits(63) if options.seed is None else options.seed,
        repetition_penalty=(
            defaults.repetition_penalty if options.repetition_penalty is None else options.repetition_penalty
        ),
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        logit_bias=options.logit_bias,
    )
