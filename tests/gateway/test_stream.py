from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.house import byte_level_backend
from twinfer.gateway.text.stop import StopSet
from twinfer.gateway.text.stream import TextStream
from twinfer.gateway.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer(byte_level_backend())


def stream(*stops: str) -> TextStream:
    """A fresh one."""
    return TextStream(TOKENIZER.detokenizer(), StopSet(stops))


@given(st.lists(st.integers(0, TOKENIZER.num_tokens + 20), max_size=30))
def test_without_stop_strings_all_text_passes(ids: list[int]) -> None:
    """The sum is what the detokenizer alone gives."""
    plain, detokenizer = stream(), TOKENIZER.detokenizer()
    deltas = [detokenizer.feed(i) for i in ids]
    assert deltas == [plain.feed(i) for i in ids]
    assert detokenizer.finish() == plain.finish()
    assert plain.stopped is None


def test_a_stop_string_is_found_across_tokens() -> None:
    """Where the tokens end does not matter."""
    text = stream("dog. The")
    ids = TOKENIZER.encode("the lazy dog. The quick", add_special_tokens=False)
    assert "".join(map(text.feed, ids)) + text.finish() == "the lazy "
    assert text.stopped == "dog. The"


def test_the_end_may_complete_a_stop_string() -> None:
    """A character left incomplete becomes U+FFFD, and that is text too."""
    text = stream("\N{REPLACEMENT CHARACTER}")
    start = next(i for i in range(TOKENIZER.num_tokens) if TOKENIZER.token_bytes(i) == b"\xe6")
    assert [text.feed(start), text.finish()] == ["", ""]
    assert text.stopped == "\N{REPLACEMENT CHARACTER}"
