"""Server-sent events as OpenAI's streams use them: data lines only."""

import msgspec

from twinfer import __version__

CONTENT_TYPE = "text/event-stream"
KEEP_ALIVE = b": still here\n\n"
"""A comment, which clients skip."""
DONE = b"data: [DONE]\n\n"
FINGERPRINT = f"twinfer-{__version__}"
"""What OpenAI's bodies call ``system_fingerprint``."""


def encode_event(payload: object) -> bytes:
    """One event with a JSON payload."""
    return b"data: " + msgspec.json.encode(payload) + b"\n\n"
