"""The made-up vocabulary: a word is a token, and every token is text that can be seen."""

import json
from pathlib import Path

from bench.published.vocabulary import END, write_tokenizer
from tokenizers import Tokenizer

from twinfer.loadtest.words import WORDS, Passage, Writer

SIZE, LAST = 3000, 2990


def written(directory: Path) -> Tokenizer:
    """A tokenizer of 3,000 tokens."""
    write_tokenizer(directory, SIZE, LAST)
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


def test_a_word_is_a_token(tmp_path: Path) -> None:
    """Every word after a space is one; a text's first word has no space and takes four."""
    tokenizer = written(tmp_path)
    assert [1] * len(WORDS) == [len(tokenizer.encode(f" {word}").ids) for word in WORDS]
    text = Writer(3).text(Passage((1,), 200, 200))
    assert 200 + 3 == len(tokenizer.encode(text).ids)


def test_every_token_is_text(tmp_path: Path) -> None:
    """Each id alone decodes to something, all to different texts, and the end to nothing."""
    tokenizer = written(tmp_path)
    texts = [tokenizer.decode([number]) for number in range(SIZE)]
    assert [LAST] == [number for number, text in enumerate(texts) if not text]
    assert SIZE == len(set(texts))
    assert END == tokenizer.id_to_token(LAST)


def test_what_is_right_stays(tmp_path: Path) -> None:
    """Writing again leaves files alone, so that what was made of them stays newer; other content replaces them."""
    write_tokenizer(tmp_path, SIZE, LAST)
    path = tmp_path / "tokenizer.json"
    before = path.stat().st_mtime_ns
    write_tokenizer(tmp_path, SIZE, LAST)
    assert before == path.stat().st_mtime_ns
    write_tokenizer(tmp_path, SIZE + 1, LAST)
    assert SIZE + 1 == len(json.loads(path.read_text())["model"]["vocab"])
