"""What the tokens of a vocabulary stand for, read from ``tokenizer.json`` without a tokenizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from twinfer.core.errors import CheckpointError

TOKENIZER_FILE = "tokenizer.json"
_WORD_BEGIN = "\N{LOWER ONE EIGHTH BLOCK}"


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The tokens of a vocabulary.

    Attributes:
        tokens: bytes by id, maybe a part of a UTF-8 character; empty for ids that stand for nothing.
        special: ids that control the model and are no text; their bytes are their written forms.
    """

    tokens: tuple[bytes, ...]
    special: tuple[int, ...]


def read_token_table(path: Path, size: int) -> TokenTable:
    """The table of a ``tokenizer.json``.

    Args:
        path: of the file.
        size: of the model's vocabulary; the tokenizer may know fewer, or more that the model never draws.

    Raises:
        CheckpointError: the file is missing, or is not a tokenizer's.
    """
    try:
        found = msgspec.json.decode(path.read_bytes())
        model, added = found["model"], found.get("added_tokens") or []
        vocab = model["vocab"]
        pairs = vocab.items() if isinstance(vocab, dict) else ((piece, i) for i, (piece, _) in enumerate(vocab))
        byte_level = is_byte_level(found.get("decoder"))
        tokens = [b""] * size
        for piece, token_id in [*pairs, *((token["content"], token["id"]) for token in added)]:
            if token_id < size:
                tokens[token_id] = token_bytes(piece, byte_level=byte_level)
        special = tuple(sorted(token["id"] for token in added if token.get("special") and token["id"] < size))
    except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as a tokenizer: {error!r}; copy or download it again") from error
    return TokenTable(tuple(tokens), special)


def is_byte_level(decoder: dict[str, Any] | None) -> bool:
    """Whether a decoder only maps GPT-2's byte alphabet back, so that tokens decode one by one.

    Args:
        decoder: as ``tokenizer.json`` has it.
    """
    if decoder is None:
        return False
    parts = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    return [part["type"] for part in parts] == ["ByteLevel"]


def token_bytes(written: str, *, byte_level: bool) -> bytes:
    """What a token stands for, by its form in a vocabulary: GPT-2's alphabet, or SentencePiece's words and bytes."""
    if byte_level:
        try:
            return bytes(_BYTE_OF[character] for character in written)
        except KeyError:
            return written.encode()  # an added token, which stands for itself
    if len(written) == 6 and written.startswith("<0x") and written.endswith(">"):
        return bytes([int(written[3:5], 16)])
    return written.replace(_WORD_BEGIN, " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's one printable character per byte: most bytes stand for themselves, the others start at U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
