"""Text has the length asked for, and is shared exactly where it should be."""

import itertools

import pytest

from twinfer.loadtest.words import WORDS, Passage, Writer


def alike(one: str, other: str) -> int:
    """Letters in front that both have."""
    return sum(1 for _ in itertools.takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))


def test_words():
    """256 of them, each of four letters, so that a byte names one."""
    assert (256, {4}) == (len(set(WORDS)), {len(word) for word in WORDS})


@pytest.mark.parametrize("tokens", [1, 5, 511, 512, 513, 100_000])
def test_lengths(tokens: int):
    """As many words as tokens, or as the server's tokenizer makes of them."""
    blocks = Passage(tuple(range(-(-tokens // 512))), 512, tokens)
    assert tokens == len(Writer(0).text(blocks).split())
    scaled = Writer(0, words_per_token=0.75, overhead_tokens=4.0)
    assert max(1, round((tokens - 4) * 0.75)) == len(scaled.text(Passage((1,), tokens, tokens)).split())


def test_prefixes_are_shared():
    """Equal blocks in front are equal text, up to the first that differs and hardly further."""
    writer = Writer(3)
    one = writer.text(Passage((7, 8, 9), 512, 1400))
    other = writer.text(Passage((7, 8, 10), 512, 1536))
    shared = alike(one, other)
    assert 1024 <= shared / 5 < 1024 + 4
    assert one.startswith(writer.text(Passage((7, 8), 512, 900)))


def test_runs_are_unlike():
    """Another seed or another nonce is another text from the first words on; the same ones are the same text."""
    passage = Passage((1, 2), 512, 800)
    first = Writer(3).text(passage)
    assert first == Writer(3).text(passage)
    for other in (Writer(4), Writer(3, nonce=1)):
        assert alike(first, other.text(passage)) < 20


def test_no_two_stretches_begin_alike():
    """Not even of a hundred thousand."""
    writer = Writer(0)
    heads = {writer.text(Passage((number,), 6, 6)) for number in range(100_000)}
    assert 100_000 == len(heads)
