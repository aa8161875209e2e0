"""The body of OpenAI's Completions: prompts as text or token ids, continued as they are, without a template."""

from dataclasses import dataclass

from twinfer.core.errors import InvalidRequest
from twinfer.gateway.dialects.chat_messages import unsupported
from twinfer.gateway.dialects.chat_request import read_options, read_streaming
from twinfer.gateway.dialects.reader import Reader, read_json
from twinfer.gateway.prepare import Options
from twinfer.gateway.text.conversation import RawPrompt

DEFAULT_MAX_TOKENS = 16
"""OpenAI's; clients of this older API rely on it."""
_MAX_PROMPTS = 128
_MAX_LOGPROBS = 5
_MAX_TOKEN_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Completion:
    """A request as OpenAI's clients write it.

    Attributes:
        prompts: each gets ``options.n`` choices.
        echo: the prompt comes back in front of each answer.
    """

    model: str
    prompts: tuple[RawPrompt, ...]
    options: Options
    echo: bool
    stream: bool
    include_usage: bool


def read_completion(body: bytes) -> Completion:
    """Read a request.

    Raises:
        InvalidRequest: it is malformed, contradicts itself, or needs what this server does not do.
    """
    fields = read_json(body)
    model = fields.need("model").string(at_least=1, at_most=2048)
    prompts = _read_prompts(fields.need("prompt"))
    options = read_options(fields, _read_logprobs(fields), DEFAULT_MAX_TOKENS)
    stream, include_usage = read_streaming(fields)
    echo = (flag := fields.get("echo")) is not None and flag.boolean()
    if len(prompts) * options.n > _MAX_PROMPTS:
        raise fields.need("prompt").violation(f"Prompts times n must be less than or equal to {_MAX_PROMPTS}")
    _refuse_unsupported(fields, options, echo)
    return Completion(model, prompts, options, echo, stream, include_usage)


def _read_prompts(field: Reader) -> tuple[RawPrompt, ...]:
    """Text, texts, token ids, or lists of them."""
    if isinstance(field.value, str):
        return (RawPrompt(field.string(at_least=1)),)
    items = field.items(at_least=1)
    if all(isinstance(item.value, int) for item in items):
        return (RawPrompt(_ids(items)),)
    if len(items) > _MAX_PROMPTS:
        raise field.violation(f"Member must have length less than or equal to {_MAX_PROMPTS}")
    return tuple(_read_prompt(item) for item in items)


def _read_prompt(item: Reader) -> RawPrompt:
    if isinstance(item.value, str):
        return RawPrompt(item.string(at_least=1))
    return RawPrompt(_ids(item.items(at_least=1)))


def _ids(items: list[Reader]) -> tuple[int, ...]:
    return tuple(item.integer(0, _MAX_TOKEN_ID) for item in items)


def _read_logprobs(fields: Reader) -> int | None:
    """A number of alternatives here; ``true`` is Chat Completions'."""
    wanted = fields.get("logprobs")
    return None if wanted is None else wanted.integer(at_least=0, at_most=_MAX_LOGPROBS)


def _refuse_unsupported(fields: Reader, options: Options, echo: bool) -> None:
    if (suffix := fields.get("suffix")) is not None and suffix.string():
        raise unsupported("suffix", suffix.path)
    best_of = fields.get("best_of")
    if best_of is not None and best_of.integer(at_least=1) != options.n:
        raise unsupported("best_of other than n", best_of.path, "ask for n answers and choose yourself")
    if echo and options.top_logprobs is not None:
        raise InvalidRequest(
            "echo with logprobs asks for the prompt's log probabilities, which are not computed; leave one out.",
            where="echo",
        )
