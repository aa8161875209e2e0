"""The body of OpenAI's Chat Completions. Fields that nothing here depends on are accepted and left unread."""

from dataclasses import dataclass

from twinfer.core.errors import InvalidRequest
from twinfer.gateway.dialects.options import read_extras, read_stop_strings, read_template_arguments
from twinfer.gateway.dialects.reader import Reader, read_json
from twinfer.gateway.prepare import Options
from twinfer.gateway.text.conversation import Conversation, Message, Text

_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}
_TIERS = ("auto", "default", "flex", "priority", "fast", "scale")
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
    messages = tuple(_read_message(message) for message in fields.need("messages").items(at_least=1))
    conversation = Conversation(messages, arguments=read_template_arguments(fields))
    options = _read_options(fields)
    stream = (flag := fields.get("stream")) is not None and flag.boolean()
    include_usage = _read_include_usage(fields, stream)
    if (tier := fields.get("service_tier")) is not None:
        tier.one_of(_TIERS)
    _refuse_unsupported(fields)
    return Chat(model, conversation, options, stream, include_usage)


def _read_message(message: Reader) -> Message:
    role = message.need("role")
    if role.value in ("tool", "function") or message.get("tool_calls") or message.get("function_call"):
        raise _unsupported("tools", role.path)
    return Message(_ROLES[role.one_of(tuple(_ROLES))], _read_content(message.need("content")))


def _read_content(content: Reader) -> tuple[Text, ...]:
    """Text, alone or in parts."""
    if isinstance(content.value, str):
        return (Text(content.string()),)
    parts = []
    for part in content.items(at_least=1):
        kind = part.need("type")
        if kind.string() != "text":
            raise _unsupported(f"content part type {kind.string()[:100]}", kind.path)
        parts.append(Text(part.need("text").string()))
    return tuple(parts)


def _read_options(fields: Reader) -> Options:
    chosen = read_extras(fields)
    for name in ("max_tokens", "max_completion_tokens"):
        if (max_tokens := fields.get(name)) is not None:
            chosen["max_tokens"] = max_tokens.integer(at_least=1, at_most=2**31 - 1)
    if (temperature := fields.get("temperature")) is not None:
        chosen["temperature"] = temperature.number(0, 2)
    if (top_p := fields.get("top_p")) is not None:
        chosen["top_p"] = top_p.number(0, 1)
    if (n := fields.get("n")) is not None:
        chosen["n"] = n.integer(at_least=1, at_most=_MAX_CHOICES)
    if (stop := fields.get("stop")) is not None:
        chosen["stop"] = (stop.string(at_least=1, at_most=1000),) if isinstance(stop.value, str) else _stops(stop)
    return Options(**chosen, top_logprobs=_read_logprobs(fields))


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


def _read_include_usage(fields: Reader, stream: bool) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise InvalidRequest("stream_options needs stream to be true; set it or leave them out.", where=options.path)
    include = options.get("include_usage")
    return include is not None and include.boolean()


def _refuse_unsupported(fields: Reader) -> None:
    for name in ("tools", "functions"):
        if (offered := fields.get(name)) is not None and offered.items():
            raise _unsupported(name, name)
    if (choice := fields.get("tool_choice")) is not None and choice.value not in ("none", "auto"):
        raise _unsupported("tool_choice", choice.path)
    if (wanted := fields.get("response_format")) is not None and wanted.need("type").string() != "text":
        raise _unsupported("response_format", wanted.path)
    modalities = fields.get("modalities")
    if modalities is not None and any(item.string() != "text" for item in modalities.items()):
        raise _unsupported("modalities", modalities.path)


def _unsupported(name: str, path: str) -> InvalidRequest:
    return InvalidRequest(f"This model does not support {name}; remove it and try again.", where=path)
