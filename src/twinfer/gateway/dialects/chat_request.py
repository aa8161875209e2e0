"""The body of OpenAI's Chat Completions. Fields that nothing here depends on are accepted and left unread."""

from dataclasses import dataclass

from twinfer.core.errors import InvalidRequest
from twinfer.core.request import GenerationRequest
from twinfer.core.service import Tier
from twinfer.gateway.dialects.chat_messages import read_messages, read_offer, unsupported
from twinfer.gateway.dialects.options import read_extras, read_stop_strings, read_template_arguments
from twinfer.gateway.dialects.output_schema import read_response_format
from twinfer.gateway.dialects.reader import Reader, read_json
from twinfer.gateway.prepare import Options
from twinfer.gateway.text.conversation import Conversation

_TIERS = {
    "auto": None,
    "default": Tier.DEFAULT,
    "flex": Tier.FLEX,
    "priority": Tier.PRIORITY,
    "fast": Tier.PRIORITY,
    "scale": Tier.RESERVED,
}
_MAX_CHOICES = 128
_MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Chat:
    """A request as OpenAI's clients write it.

    Attributes:
        include_usage: a stream's client wants a last chunk with the usage.
    """

    model: str
    conversation: Conversation
    options: Options
    stream: bool
    include_usage: bool


def read_chat(body: bytes) -> Chat:
    """Read a request.

    Raises:
        InvalidRequest: it is malformed, contradicts itself, or needs what this server does not do.
    """
    return read_chat_fields(read_json(body))


def read_chat_fields(fields: Reader) -> Chat:
    """Read a request that was decoded already."""
    model = fields.need("model").string(at_least=1, at_most=2048)
    offer = read_offer(fields)
    output = read_response_format(fields.get("response_format"))
    arguments = read_template_arguments(fields)
    conversation = Conversation(read_messages(fields), *offer, arguments=arguments, output=output)
    options = read_options(fields, _read_logprobs(fields))
    stream, include_usage = read_streaming(fields)
    _refuse_unsupported(fields)
    return Chat(model, conversation, options, stream, include_usage)


def read_options(fields: Reader, top_logprobs: int | None, max_tokens: int | None = None) -> Options:
    """How answers are wanted; the last arguments are what the API's own fields say of them."""
    chosen = read_extras(fields) | {"top_logprobs": top_logprobs, "max_tokens": max_tokens}
    for name in ("max_tokens", "max_completion_tokens"):
        if (most := fields.get(name)) is not None:
            chosen["max_tokens"] = most.integer(at_least=1, at_most=2**31 - 1)
    if (temperature := fields.get("temperature")) is not None:
        chosen["temperature"] = temperature.number(0, 2)
    if (top_p := fields.get("top_p")) is not None:
        chosen["top_p"] = top_p.number(0, 1)
    if (n := fields.get("n")) is not None:
        chosen["n"] = n.integer(at_least=1, at_most=_MAX_CHOICES)
    if (tier := fields.get("service_tier")) is not None:
        chosen["tier"] = _TIERS[tier.one_of(tuple(_TIERS))]
    if (stop := fields.get("stop")) is not None:
        chosen["stop"] = (stop.string(at_least=1, at_most=1000),) if isinstance(stop.value, str) else _stops(stop)
    return Options(**chosen)


def _stops(stop: Reader) -> tuple[str, ...]:
    return read_stop_strings(stop, at_most=4)


def _read_logprobs(fields: Reader) -> int | None:
    """How many alternatives to report for every token; ``None`` for no log probabilities at all."""
    wanted = (flag := fields.get("logprobs")) is not None and flag.boolean()
    top = fields.get("top_logprobs")
    if top is None:
        return 0 if wanted else None
    number = top.integer(at_least=0, at_most=_MAX_TOP_LOGPROBS)
    if not wanted and number:
        raise InvalidRequest("top_logprobs needs logprobs to be true; set it too.", where=top.path)
    return number if wanted else None


def read_streaming(fields: Reader) -> tuple[bool, bool]:
    """Whether to stream, and whether a stream ends with the usage."""
    stream = (flag := fields.get("stream")) is not None and flag.boolean()
    options = fields.get("stream_options")
    if options is None:
        return stream, False
    if not stream:
        raise InvalidRequest("stream_options needs stream to be true; set it or leave them out.", where=options.path)
    if (obfuscation := options.get("include_obfuscation")) is not None:
        obfuscation.boolean()
    include = options.get("include_usage")
    return stream, include is not None and include.boolean()


def tier_served(request: GenerationRequest) -> str:
    """A service tier in OpenAI's words."""
    return "scale" if request.tier is Tier.RESERVED else request.tier.value


def _refuse_unsupported(fields: Reader) -> None:
    modalities = fields.get("modalities")
    if modalities is not None and any(item.string() != "text" for item in modalities.items()):
        raise unsupported("modalities", modalities.path)
