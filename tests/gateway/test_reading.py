from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.house import byte_level_backend
from twinfer.gateway.text.content import TextBlock, TextDelta, join_deltas
from twinfer.gateway.text.reading import PlainReading
from twinfer.gateway.text.stop import StopSet
from twinfer.gateway.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer(byte_level_backend())


def reading(*stops: str) -> PlainReading:
    """A fresh one."""
    return PlainReading(TOKENIZER.detokenizer(), StopSet(stops))


@given(st.lists(st.lists(st.integers(0, TOKENIZER.num_tokens + 20), max_size=5), max_size=9))
def test_without_stop_strings_all_text_passes(batches: list[list[int]]) -> None:
    """However the tokens come, the sum is what the detokenizer alone gives, and no delta is empty."""
    plain, detokenizer = reading(), TOKENIZER.detokenizer()
    text = "".join(detokenizer.feed(i) for batch in batches for i in batch) + detokenizer.finish()
    deltas = []
    for batch in batches:
        for token_id in batch:
            plain.feed(token_id)
        deltas += plain.take()
    plain.finish()
    deltas += plain.take()
    assert join_deltas(deltas) == ((TextBlock(text),) if text else ())
    assert TextDelta("") not in deltas
    assert (plain.stopped, plain.num_reasoning_tokens, plain.take()) == (None, 0, ())


def test_a_stop_string_is_found_across_tokens() -> None:
    """Where the tokens end does not matter."""
    plain = reading("dog. The")
    for token_id in TOKENIZER.encode("the lazy dog. The quick", add_special_tokens=False):
        plain.feed(token_id)
    plain.finish()
    assert plain.take() == (TextDelta("the lazy "),)
    assert plain.stopped == "dog. The"


def test_the_end_may_complete_a_stop_string() -> None:
    """A character left incomplete becomes U+FFFD, and that is text too."""
    plain = reading("\N{REPLACEMENT CHARACTER}")
    plain.feed(next(i for i in range(TOKENIZER.num_tokens) if TOKENIZER.token_bytes(i) == b"\xe6"))
    assert (plain.take(), plain.stopped) == ((), None)
    plain.finish()
    assert (plain.take(), plain.stopped) == ((), "\N{REPLACEMENT CHARACTER}")
