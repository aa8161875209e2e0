"""Server-sent events as OpenAI's streams use them: data lines only."""

import msgspec

CONTENT_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"


def encode_event(payload: object) -> bytes:
    """One event with a JSON payload."""
    return b"data: " + msgspec.json.encode(payload) + b"\n\n"
