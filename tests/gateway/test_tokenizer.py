from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.house import EOS, SPECIAL, byte_level_backend
from twinfer.core.errors import CheckpointError
from twinfer.gateway.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer(byte_level_backend())


@given(st.text(max_size=50))
def test_decode_inverts_encode(text: str) -> None:
    """Any text survives the way to token ids and back."""
    assert text == TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False))


@given(st.text(max_size=50))
def test_token_bytes_add_up_to_the_text(text: str) -> None:
    """The bytes of the tokens of a text are the bytes of the text."""
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert text.encode() == b"".join(map(TOKENIZER.token_bytes, ids))


def test_every_byte_has_a_token() -> None:
    """The alphabet covers all 256 bytes, each once."""
    single = [TOKENIZER.token_bytes(i) for i in range(TOKENIZER.num_tokens) if len(TOKENIZER.token_bytes(i)) == 1]
    assert [bytes([byte]) for byte in range(256)] == sorted(single)


def test_special_tokens_are_recognised_in_text() -> None:
    """Templates write them out; they are ids of their own, and no part of an answer."""
    ids = TOKENIZER.encode(f"{SPECIAL[2]}hi", add_special_tokens=False)
    assert (TOKENIZER.id_of(SPECIAL[2]), True) == (ids[0], TOKENIZER.is_special(ids[0]))
    assert TOKENIZER.id_of("no such token") is None


def test_truncation_of_the_file_is_switched_off(tmp_path: Path) -> None:
    """A tokenizer saved with a training-time limit must not cut prompts."""
    backend = byte_level_backend()
    backend.enable_truncation(4)
    backend.enable_padding(length=4)
    backend.save(str(tmp_path / "tokenizer.json"))
    ids = Tokenizer.from_file(tmp_path / "tokenizer.json").encode("hello world" * 9, add_special_tokens=False)
    assert TOKENIZER.decode(ids) == "hello world" * 9


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    """The error says which file and what about it."""
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read as a tokenizer"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_ids_beyond_the_vocabulary_are_unknown() -> None:
    """They have bytes all the same: U+FFFD."""
    assert (TOKENIZER.knows(EOS), TOKENIZER.knows(100_000)) == (True, False)
    assert "\N{REPLACEMENT CHARACTER}".encode() == TOKENIZER.token_bytes(100_000)
