"""AWS event-stream framing (``application/vnd.amazon.eventstream``).

A frame: total length, header length, CRC32 of these eight bytes, headers, payload, CRC32 of all before it; big-endian.
"""

import secrets
import string
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_STRING = 7
"""The only header type that is sent."""
_PADDING = string.ascii_letters + string.digits[:9]


def encode_event(event_type: str, payload: bytes) -> bytes:
    """One event with a JSON payload."""
    return _frame(((":event-type", event_type), _JSON, (":message-type", "event")), payload)


def encode_json(event_type: str, payload: Mapping[str, Any], padded: bool) -> bytes:
    """One event; padded, it carries a field ``p`` that hides its length from who watches encrypted traffic."""
    if padded:
        payload = {"p": _PADDING[: 2 + secrets.randbelow(len(_PADDING) - 1)], **payload}
    return encode_event(event_type, msgspec.json.encode(payload))


def encode_exception(exception_type: str, payload: bytes) -> bytes:
    """An error that the service model knows, under its lower-camel name."""
    return _frame(((":exception-type", exception_type), _JSON, (":message-type", "exception")), payload)


_JSON = (":content-type", "application/json")


def _frame(headers: Sequence[tuple[str, str]], payload: bytes) -> bytes:
    head = b"".join(_header(name.encode(), value.encode()) for name, value in headers)
    lengths = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    frame = lengths + struct.pack(">I", zlib.crc32(lengths)) + head + payload
    return frame + struct.pack(">I", zlib.crc32(frame))


def _header(name: bytes, value: bytes) -> bytes:
    return struct.pack(f">B{len(name)}sBH", len(name), name, _STRING, len(value)) + value
