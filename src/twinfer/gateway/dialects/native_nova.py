"""Amazon Nova's native body: Converse's messages, and one event object in each chunk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twinfer.gateway.answers import Answer, Piece
from twinfer.gateway.dialects.converse_answer import CALL_PREFIX, ContentEvents, Event, message, stop_reason, usage
from twinfer.gateway.dialects.converse_request import read_conversation, read_inference_config
from twinfer.gateway.dialects.native import Addressed, Chunk, required
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.prepare import Asked, Options


def read_nova(fields: Reader, addressed: Addressed) -> "NovaRequest":
    """A conversation, with the options under the names of either of Nova's two documented spellings."""
    required(fields, "messages")
    conversation = read_conversation(fields, {})
    config = fields.get("inferenceConfig")
    options = Options() if config is None else Options(**_read_options(config))
    asked = Asked(addressed.model, conversation, options, CALL_PREFIX, whole_calls=not addressed.streamed)
    return NovaRequest(asked)


def _read_options(config: Reader) -> dict[str, Any]:
    chosen = read_inference_config(config)
    if (max_tokens := config.get("max_new_tokens")) is not None:
        chosen["max_tokens"] = max_tokens.integer(1, 2**31 - 1)
    if (top_p := config.get("top_p")) is not None:
        chosen["top_p"] = top_p.number(0, 1)
    for name in ("topK", "top_k"):
        if (top_k := config.get(name)) is not None:
            chosen["top_k"] = top_k.integer(0, 128)
    return chosen


@dataclass(frozen=True, slots=True)
class NovaRequest:
    """A conversation to continue."""

    asked: Asked

    def body(self, answers: Sequence[Answer]) -> Chunk:
        """The message, why it ended, and what it took."""
        answer = answers[0]
        return {
            "output": {"message": message(answer)},
            "stopReason": stop_reason(answer),
            "usage": usage(answer),
        }

    def stream(self, num_prompt_tokens: int) -> "NovaStream":
        """Its events."""
        return NovaStream()


class NovaStream:
    """One answer, an event a chunk; clients read to the last one, which is the metadata."""

    def __init__(self) -> None:
        self._content = ContentEvents()

    def begin(self) -> Sequence[Chunk]:
        """Who speaks."""
        return ({"messageStart": {"role": "assistant"}},)

    def pieces(self, pieces: Sequence[Piece]) -> Sequence[Chunk]:
        """New content."""
        return _chunks(self._content.feed([delta for piece in pieces for delta in piece.deltas]))

    def end(self, answers: Sequence[Answer], latency_ms: int) -> Sequence[Chunk]:
        """The last block's end, why the message ended, and what it took."""
        answer = answers[0]
        return (
            *_chunks(self._content.finish()),
            {"messageStop": {"stopReason": stop_reason(answer)}},
            {"metadata": {"usage": usage(answer), "metrics": {"latencyMs": latency_ms}}},
        )


def _chunks(events: Sequence[Event]) -> list[Chunk]:
    return [{name: payload} for name, payload in events]
