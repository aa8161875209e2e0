from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers

from tests.gateway.house import SPECIAL, byte_level_backend
from twinfer.gateway.text.detokenizer import REPLACEMENT, ByteDetokenizer, WindowDetokenizer
from twinfer.gateway.text.tokenizer import Tokenizer

BYTE_LEVEL = Tokenizer(byte_level_backend())
IDS = st.lists(st.integers(0, BYTE_LEVEL.num_tokens - 1), max_size=40)


def sentencepiece() -> Tokenizer:
    """A vocabulary in Llama 2's manner: a mark for spaces, one token per byte, the first space stripped."""
    words = ["<unk>", "▁hello", "▁", "lo", "w", "▁東", "京", "é"]
    names = words + [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Backend(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], unk_token="<unk>"))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<s>"])
    return Tokenizer(backend)


SENTENCEPIECE = sentencepiece()
FIRST_BYTE = 8


def written(detokenizer: ByteDetokenizer | WindowDetokenizer, ids: list[int]) -> list[str]:
    """What is shown after each token, and at the end."""
    return [*map(detokenizer.feed, ids), detokenizer.finish()]


@given(IDS)
def test_byte_level_text_is_the_library_s(ids: list[int]) -> None:
    """In sum the deltas are decode(ids), whatever bytes the ids make, valid UTF-8 or not."""
    detokenizer = BYTE_LEVEL.detokenizer()
    assert isinstance(detokenizer, ByteDetokenizer)
    assert BYTE_LEVEL.decode(ids) == "".join(written(detokenizer, ids))


@given(IDS)
def test_window_text_is_the_library_s(ids: list[int]) -> None:
    """The method for other vocabularies gives the same, and so can be trusted where tokens do depend on others."""
    assert BYTE_LEVEL.decode(ids) == "".join(written(WindowDetokenizer(BYTE_LEVEL), ids))


pieces = st.one_of(
    st.integers(0, FIRST_BYTE - 1).map(lambda i: [i]),
    st.characters(codec="utf-8").map(lambda c: [FIRST_BYTE + byte for byte in c.encode()]),
    st.just([264]),
)


@given(st.lists(pieces, max_size=30).map(lambda lists: [i for part in lists for i in part]))
def test_sentencepiece_text_is_the_library_s(ids: list[int]) -> None:
    """Stripped first spaces and characters spelt in byte tokens come out as in one go."""
    detokenizer = SENTENCEPIECE.detokenizer()
    assert isinstance(detokenizer, WindowDetokenizer)
    assert SENTENCEPIECE.decode(ids) == "".join(written(detokenizer, ids))


@given(st.lists(st.integers(FIRST_BYTE, FIRST_BYTE + 255), max_size=12))
def test_byte_fallback_is_never_shown_half(ids: list[int]) -> None:
    """A run of byte tokens shows whole characters only; U+FFFD waits for the run's end."""
    *deltas, _ = written(SENTENCEPIECE.detokenizer(), ids)
    assert [delta for delta in deltas if delta.endswith(REPLACEMENT)] == []


@given(st.text(max_size=30))
def test_valid_text_never_shows_a_replacement(text: str) -> None:
    """Deltas of encoded text hold only its own characters: none is ever cut in half."""
    ids = list(BYTE_LEVEL.encode(text, add_special_tokens=False))
    deltas = written(BYTE_LEVEL.detokenizer(), ids)
    assert text == "".join(deltas)
    assert text.count(REPLACEMENT) == sum(delta.count(REPLACEMENT) for delta in deltas)


def test_ids_outside_the_vocabulary_are_replacements() -> None:
    """An engine may draw ids that no tokenizer has; each shows, and what stood open before is closed."""
    start = next(i for i in range(BYTE_LEVEL.num_tokens) if BYTE_LEVEL.token_bytes(i) == b"\xe6")
    assert written(BYTE_LEVEL.detokenizer(), [start, 100_000])[1:] == [REPLACEMENT * 2, ""]
    deltas = written(SENTENCEPIECE.detokenizer(), [1, FIRST_BYTE + 0xE6, 100_000, 1])
    assert deltas == ["hello", "", REPLACEMENT * 2, " hello", ""]


def test_special_tokens_are_not_text() -> None:
    """They steer the model; an added token that is not special is text."""
    special = BYTE_LEVEL.id_of(SPECIAL[2])
    added = BYTE_LEVEL.id_of("<tool call>")
    assert special is not None
    assert added is not None
    assert written(BYTE_LEVEL.detokenizer(), [special, added]) == ["", "<tool call>", ""]


def fallback() -> Tokenizer:
    """One in Llama 2's manner that can cut any text: what it has no word for becomes byte tokens."""
    names = [
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁h",
        "h",
        "e",
        "é",
        "東",
        "🙂",
        "\N{ZERO WIDTH JOINER}",
    ]
    vocab = {name: i for i, name in enumerate(names)}
    backend = Backend(
        models.BPE(vocab=vocab, merges=[("▁", "h")], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend)


def word_piece() -> Tokenizer:
    """One in BERT's manner: whether a space stands before a token depends on what is before it."""
    vocab = {name: i for i, name in enumerate(["[UNK]", "hel", "##lo", "wor", "##ld", "é", "##東"])}
    backend = Backend(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece(cleanup=False)
    return Tokenizer(backend)


FALLBACK, WORD_PIECE = fallback(), word_piece()
JOINED = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "e\N{COMBINING ACUTE ACCENT}", "नि", "한", "🇫🇷", "h", " ", " h", "é", "東", "\n"]
texts = st.lists(st.one_of(st.sampled_from(JOINED), st.characters(codec="utf-8")), max_size=20).map("".join)


@given(st.sampled_from([BYTE_LEVEL, FALLBACK]), texts.filter(lambda text: "▁" not in text and text[:1] != " "))
def test_no_character_is_ever_shown_in_part(tokenizer: Tokenizer, text: str) -> None:
    """Emoji of many code points, marks that combine, bytes for want of a word: whole code points, and all of them."""
    ids = list(tokenizer.encode(text, add_special_tokens=False))
    detokenizer, shown = tokenizer.detokenizer(), ""
    for token_id in ids:
        shown += detokenizer.feed(token_id)
        assert text.startswith(shown)
    assert text == shown + detokenizer.finish()


@given(st.lists(st.integers(0, WORD_PIECE.num_tokens - 1), max_size=20))
def test_spaces_that_depend_on_the_left_are_the_library_s(ids: list[int]) -> None:
    """A token's text is what it adds to those before it."""
    assert WORD_PIECE.decode(ids) == "".join(written(WORD_PIECE.detokenizer(), ids))
