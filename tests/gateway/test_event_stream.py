import json

import pytest
from botocore.eventstream import EventStreamBuffer

from twinfer.gateway.dialects.event_stream import encode_event, encode_exception, encode_json

MESSAGE_START = (
    "0000008300000052160125f30b3a6576656e742d7479706507000c6d65737361676553746172740d3a636f6e74656e742d74797065070010"
    "6170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d747970650700056576656e747b2270223a22616263646566222c22726f6c"
    "65223a22617373697374616e74227d0cd629ac"
)
THROTTLED = (
    "0000008300000061a9d144e50f3a657863657074696f6e2d747970650700137468726f74746c696e67457863657074696f6e0d3a636f6e74"
    "656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d74797065070009657863657074696f6e7b226d"
    "657373616765223a22736c6f77227d9350311c"
)


def test_frames_are_aws_s_to_the_byte() -> None:
    """The first is identical to one recorded from AWS; both have 131 bytes."""
    assert encode_event("messageStart", b'{"p":"abcdef","role":"assistant"}').hex() == MESSAGE_START
    assert encode_exception("throttlingException", b'{"message":"slow"}').hex() == THROTTLED


@pytest.mark.parametrize("payload", [b"{}", b"x" * 100_000, "東京".encode()])
def test_botocore_reads_what_is_written(payload: bytes) -> None:
    """Lengths and checksums hold for any payload, also when frames arrive in pieces."""
    data = encode_event("one", payload) + encode_event("two", payload)
    buffer, found = EventStreamBuffer(), []
    for start in range(0, len(data), 1000):
        buffer.add_data(data[start : start + 1000])
        found += [(event.headers[":event-type"], event.payload) for event in buffer]
    assert [("one", payload), ("two", payload)] == found


def test_a_delta_s_frame_costs_103_bytes() -> None:
    """As AWS's own does: headers in its order and nothing more."""
    assert len(encode_event("contentBlockDelta", b"")) == 103


def test_padding_comes_first_and_varies() -> None:
    """As AWS's does: the beginning of one alphabet, 2 to 61 characters of it."""
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ012345678"
    lengths = set()
    for _ in range(200):
        buffer = EventStreamBuffer()
        buffer.add_data(encode_json("messageStart", {"role": "assistant"}, padded=True))
        payload = json.loads(next(buffer).payload)
        assert ["p", "role"] == list(payload)
        assert alphabet.startswith(payload["p"])
        lengths.add(len(payload["p"]))
    assert len(lengths) > 10
    assert (min(lengths) >= 2, max(lengths) <= 61) == (True, True)
    plain = encode_json("messageStart", {"role": "assistant"}, padded=False)
    assert plain == encode_event("messageStart", b'{"role":"assistant"}')
