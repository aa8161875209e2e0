"""Native bodies that continue a prompt as it is: Meta Llama, Mistral's older models, DeepSeek R1.

The prompt carries the model's own marks; no template is added. The answer is text only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from twinfer.gateway.answers import Answer, Piece, join_text
from twinfer.gateway.dialects.native import Addressed, Chunk, required, why
from twinfer.gateway.dialects.options import EXTRA_NAMES, read_extras, read_stop_strings, refuse_others
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.prepare import Asked, Options
from twinfer.gateway.text.conversation import RawPrompt

_COMMON = EXTRA_NAMES | {"prompt", "temperature", "top_p", "amazon-bedrock-guardrailConfig"}
"""The last one says how a guardrail is to work; whether there is any is said by headers."""
_LLAMA = _COMMON | {"max_gen_len", "images"}
_OTHERS = _COMMON | {"max_tokens", "stop"}
_MAX_STOPS = 10


@dataclass(frozen=True, slots=True)
class Part:
    """What one chunk says, or the whole body.

    Attributes:
        num_prompt_tokens: in the first chunk and in the whole body.
        num_tokens: of the answer, up to here.
        stop_reason: in the last chunk and in the whole body.
    """

    text: str
    num_prompt_tokens: int | None
    num_tokens: int
    stop_reason: str | None


Write: TypeAlias = Callable[[Part], Chunk]


def read_llama(fields: Reader, addressed: Addressed) -> "TextRequest":
    """Meta Llama's body, with its documented defaults."""
    prompt = required(fields, "prompt")
    refuse_others(fields, _LLAMA)
    if (images := fields.get("images")) is not None:
        images.items(at_most=0)
    chosen = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 512} | _read_common(fields)
    if (max_tokens := fields.get("max_gen_len")) is not None:
        chosen["max_tokens"] = max_tokens.integer(1, 2048)
    return _request(prompt, chosen, addressed, _write_llama)


def read_mistral_text(fields: Reader, addressed: Addressed) -> "TextRequest":
    """Mistral's body with a prompt."""
    prompt = required(fields, "prompt")
    refuse_others(fields, _OTHERS)
    chosen = {"max_tokens": 512} | _read_others(fields)
    if (top_k := fields.get("top_k")) is not None:
        chosen["top_k"] = top_k.integer(1, 200)
    return _request(prompt, chosen, addressed, lambda part: {"outputs": [_said(part)]})


def read_deepseek(fields: Reader, addressed: Addressed) -> "TextRequest":
    """DeepSeek R1's body. What it thinks is part of the text, because the prompt ends with the mark of thinking."""
    prompt = required(fields, "prompt")
    refuse_others(fields, _OTHERS)
    return _request(prompt, _read_others(fields), addressed, lambda part: {"choices": [_said(part)]})


def _request(prompt: Reader, chosen: dict[str, Any], addressed: Addressed, write: Write) -> "TextRequest":
    asked = Asked(addressed.model, RawPrompt(prompt.string(at_least=1)), Options(**chosen))
    return TextRequest(asked, write)


def _read_common(fields: Reader) -> dict[str, Any]:
    chosen = read_extras(fields)
    for name in ("temperature", "top_p"):
        if (value := fields.get(name)) is not None:
            chosen[name] = value.number(0, 1)
    return chosen


def _read_others(fields: Reader) -> dict[str, Any]:
    chosen = _read_common(fields)
    if (max_tokens := fields.get("max_tokens")) is not None:
        chosen["max_tokens"] = max_tokens.integer(1, 32_768)
    if (stop := fields.get("stop")) is not None:
        chosen["stop"] = read_stop_strings(stop, _MAX_STOPS)
    return chosen


def _write_llama(part: Part) -> Chunk:
    return {
        "generation": part.text,
        "prompt_token_count": part.num_prompt_tokens,
        "generation_token_count": part.num_tokens,
        "stop_reason": part.stop_reason,
    }


def _said(part: Part) -> Chunk:
    return {"text": part.text, "stop_reason": part.stop_reason}


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A prompt to continue, and how the family writes what comes."""

    asked: Asked
    write: Write

    def body(self, answers: Sequence[Answer]) -> Chunk:
        """All of it."""
        answer = answers[0]
        return self.write(Part(answer.text, len(answer.request.prompt), answer.num_tokens, why(answer)))

    def stream(self, num_prompt_tokens: int) -> "TextStream":
        """Its parts."""
        return TextStream(self.write, num_prompt_tokens)


class TextStream:
    """One answer, chunk by chunk; each carries new text, and the last one the reason too."""

    def __init__(self, write: Write, num_prompt_tokens: int) -> None:
        self._write = write
        self._num_prompt_tokens: int | None = num_prompt_tokens

    def begin(self) -> Sequence[Chunk]:
        """Nothing."""
        return ()

    def pieces(self, pieces: Sequence[Piece]) -> Sequence[Chunk]:
        """New text, if there is any."""
        text = join_text(pieces)
        return (self._chunk(text, pieces[-1].num_tokens, None),) if text else ()

    def end(self, answers: Sequence[Answer], latency_ms: int) -> Sequence[Chunk]:
        """Why it ended."""
        return (self._chunk("", answers[0].num_tokens, why(answers[0])),)

    def _chunk(self, text: str, num_tokens: int, stop_reason: str | None) -> Chunk:
        shown, self._num_prompt_tokens = self._num_prompt_tokens, None
        return self._write(Part(text, shown, num_tokens, stop_reason))
