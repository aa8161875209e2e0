"""OpenAI's two APIs: what is sent, and what is made of the events."""

import msgspec
import pytest

from twinfer.loadtest.api import Options, Question, RubbishError
from twinfer.loadtest.openai import ChatCompletions, Completions, EventReader

TURNS = Question(("one", "two", "three"), 8)


def read(*parts: bytes) -> EventReader:
    """A reader after these bytes."""
    reader = EventReader()
    for part in parts:
        reader.feed(part)
    return reader


def test_a_chat():
    """Turns alternate; usage is asked for; an extra field replaces, and null leaves out."""
    body = ChatCompletions(Options("m", ignore_eos=True, extra={"temperature": None, "top_k": 1})).body(TURNS)
    assert msgspec.json.decode(body) == {
        "model": "m",
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
        ],
        "max_tokens": 8,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "top_k": 1,
    }


def test_a_completion():
    """Earlier turns stand before the prompt; unknown fields are not sent unasked."""
    body = msgspec.json.decode(Completions(Options("m")).body(TURNS))
    assert body["prompt"] == "one\ntwo\nthree"
    assert "ignore_eos" not in body


def test_an_answer_in_any_pieces():
    """Wherever the bytes are cut, the same is heard: text, usage, route, end."""
    stream = (
        b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}], "usage": null}\r\n\r\n'
        b": a comment\n\n"
        b'data: {"choices": [{"delta": {"content": "ab"}}]}\n\n'
        b'data: {"choices": [{"delta": {"reasoning_content": "c"}, "finish_reason": "stop"}]}\n\n'
        b'data:{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}, "twinfer": {"route": "r"}}\n\n'
        b"data: [DONE]\n\n"
    )
    for cut in range(len(stream)):
        heard = read(stream[:cut], stream[cut:]).heard
        assert (["ab", "c"], 5, 2, "stop", "r", True) == (
            heard.text,
            heard.prompt_tokens,
            heard.output_tokens,
            heard.finish,
            heard.route,
            heard.ended,
        )


def test_text_of_completions_and_calls_counts():
    """Both are progress that a reader sees."""
    reader = read(
        b'data: {"choices": [{"text": "x", "finish_reason": null}]}\n',
        b'data: {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "{"}}]}}]}\n',
    )
    assert 2 == len(reader.heard.text)


def test_an_error_in_the_stream():
    """It is heard, in the server's words."""
    assert "no room" == read(b'data: {"error": {"message": "no room", "type": "x"}}\n\n').heard.failure
    assert "no room" == read(b'data: {"error": "no room"}\n\n').heard.failure


@pytest.mark.parametrize(
    "rubbish",
    [
        b"<html>\n",
        b"data: <html>\n\n",
        b'data: {"choices": 7}\n\n',
        b"data: \xff\n\n",
        b'{"choices": []}\n',
        b"data: 3\n",
    ],
)
def test_rubbish(rubbish: bytes):
    """What is no event of this API is refused."""
    with pytest.raises(RubbishError):
        read(rubbish)


def test_an_event_without_an_end():
    """It does not fill the memory."""
    with pytest.raises(RubbishError, match="without an end"):
        read(*[b"data: " + b"x" * (1 << 16)] * 100)
