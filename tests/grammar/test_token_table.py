import json
from pathlib import Path

import pytest

from twinfer.core.errors import CheckpointError
from twinfer.gateway.text.tokenizer import Tokenizer
from twinfer.grammar.token_table import read_token_table
from twinfer.grammar.vocabulary import load_vocabulary
from twinfer.model.checkpoint import locate

ADDED = [{"id": 3, "content": "<s>", "special": True}, {"id": 4, "content": "<tool call>", "special": False}]


def written(directory: Path, vocab: object, decoder: object) -> Path:
    """A tokenizer's file."""
    path = directory / "tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": vocab}, "decoder": decoder, "added_tokens": ADDED}))
    return path


def test_bytes_in_gpt2_s_alphabet(tmp_path: Path) -> None:
    """Ids without a token stand for nothing; those beyond the model's vocabulary are never drawn."""
    path = written(tmp_path, {"Ġa": 0, "Ã": 1, "z": 7}, {"type": "ByteLevel"})
    table = read_token_table(path, 6)
    assert (b" a", b"\xc3", b"", b"<s>", b"<tool call>", b"") == table.tokens
    assert (3,) == table.special


def test_sentencepiece_s_words_and_bytes(tmp_path: Path) -> None:
    """Pieces with their scores, and bytes written in hexadecimal."""
    path = written(tmp_path, [["▁the", -1.0], ["<0x0A>", -2.0], ["é", -3.0]], {"type": "Sequence", "decoders": []})
    assert (b" the", b"\n", "é".encode(), b"<s>", b"<tool call>") == read_token_table(path, 5).tokens


def test_the_gateway_s_bytes() -> None:
    """Every token of the demo model is read as the gateway shows it."""
    path = locate("demo") / "tokenizer.json"
    tokenizer = Tokenizer.from_file(path)
    assert tuple(map(tokenizer.token_bytes, range(4096))) == read_token_table(path, 4096).tokens


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": {"vocab": {"a": "b"}}}', '{"model": {"vocab": [1]}}'])
def test_what_is_no_tokenizer(tmp_path: Path, text: str) -> None:
    """The file is named."""
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=str(path)):
        load_vocabulary(tmp_path, 10)


def test_a_checkpoint_without_tokenizer(tmp_path: Path) -> None:
    """It has no vocabulary, which is no error."""
    assert load_vocabulary(tmp_path, 10) is None
