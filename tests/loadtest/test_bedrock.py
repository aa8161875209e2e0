"""ConverseStream: what is sent, and what is made of the frames that the gateway, as AWS, writes."""

import msgspec
import pytest

from twinfer.gateway.dialects.event_stream import encode_event, encode_exception
from twinfer.loadtest.api import Options, Question, RubbishError
from twinfer.loadtest.bedrock import ConverseStream, FrameReader, _headers

STREAM = b"".join(
    encode_event(kind, payload)
    for kind, payload in (
        ("messageStart", b'{"role":"assistant"}'),
        ("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"ab"},"p":"abcd"}'),
        ("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"reasoningContent":{"text":"c"}}}'),
        ("contentBlockDelta", b'{"contentBlockIndex":1,"delta":{"toolUse":{"input":"{}"}}}'),
        ("contentBlockStop", b'{"contentBlockIndex":0}'),
        ("messageStop", b'{"stopReason":"end_turn"}'),
        (
            "metadata",
            b'{"usage":{"inputTokens":2,"outputTokens":2,"cacheReadInputTokens":3},"metrics":{"latencyMs":3},"twinfer":{"route":"r"}}',
        ),
    )
)


def test_a_question():
    """The model stands in the path, encoded once; extra fields are the body's."""
    api = ConverseStream(Options("a.b-v1:0", ignore_eos=True, extra={"guardrailConfig": {}}))
    assert api.path == "/model/a.b-v1%3A0/converse-stream"
    assert msgspec.json.decode(api.body(Question(("one", "two", "three"), 8))) == {
        "messages": [
            {"role": "user", "content": [{"text": "one"}]},
            {"role": "assistant", "content": [{"text": "two"}]},
            {"role": "user", "content": [{"text": "three"}]},
        ],
        "inferenceConfig": {"maxTokens": 8, "temperature": 0},
        "additionalModelRequestFields": {"ignore_eos": True},
        "guardrailConfig": {},
    }


def test_an_answer_in_any_pieces():
    """Wherever the bytes are cut, the same is heard."""
    for cut in range(0, len(STREAM), 3):
        reader = FrameReader()
        reader.feed(STREAM[:cut])
        reader.feed(STREAM[cut:])
        heard = reader.heard
        assert (["ab", "c", "{}"], 5, 2, "end_turn", "r", True) == (
            heard.text,
            heard.prompt_tokens,
            heard.output_tokens,
            heard.finish,
            heard.route,
            heard.ended,
        )


def test_an_exception_in_the_stream():
    """Its name and its message are heard."""
    reader = FrameReader()
    reader.feed(encode_exception("throttlingException", b'{"message":"too many"}'))
    assert "throttlingException: too many" == reader.heard.failure


def test_all_types_of_headers():
    """A header of any type is passed over, and text is read."""
    raw = b"\x01a\x00\x01b\x04\x00\x00\x00\x01\x01c\x06\x00\x02xy\x01d\x07\x00\x02xy\x01e\x09" + bytes(16)
    assert {"d": "xy"} == _headers(raw)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"data: {}\n\ndata: {}\n\n",
        STREAM[:20] + b"?" + STREAM[21:],
        STREAM[:4] + b"\xff" + STREAM[5:],
        encode_event("messageStop", b"[1]"),
        encode_event("messageStop", b"\xff"),
    ],
)
def test_rubbish(rubbish: bytes):
    """Other bytes, and frames with a wrong checksum or payload, are refused."""
    with pytest.raises(RubbishError):
        FrameReader().feed(rubbish)
