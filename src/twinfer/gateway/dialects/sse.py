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


HOLE = msgspec.Raw(b"\0")
"""Where a mould is filled; no JSON text has such a byte."""


class Mould:
    """Events that differ in few places: what they share is encoded once.

    Args:
        payload: with a ``HOLE`` for each value that differs.
    """

    def __init__(self, payload: object) -> None:
        self._begin, *self._rest = encode_event(payload).split(b"\0")

    def fill(self, *values: object) -> bytes:
        """One event, with these values in its holes in the order in which they stand."""
        parts = [self._begin]
        for value, rest in zip(values, self._rest, strict=True):
            parts += msgspec.json.encode(value), rest
        return b"".join(parts)
