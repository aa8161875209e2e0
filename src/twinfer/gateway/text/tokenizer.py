"""Text to token ids and back, by the model's own ``tokenizer.json``."""

import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from twinfer.core.errors import CheckpointError
from twinfer.gateway.text.detokenizer import REPLACEMENT, ByteDetokenizer, Detokenizer, WindowDetokenizer


class Tokenizer:
    """A model's vocabulary, and the rules to cut text into it."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._special = frozenset(i for i, token in backend.get_added_tokens_decoder().items() if token.special)
        self._byte_level = _is_byte_level(backend)
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def from_file(cls, path: Path) -> "Tokenizer":
        """Read ``tokenizer.json``.

        Raises:
            CheckpointError: the file is missing or not a tokenizer.
        """
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: a served model needs its tokenizer.json")
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"{path} cannot be read as a tokenizer: {error}") from error

    @property
    def num_tokens(self) -> int:
        """Tokens in the vocabulary, added ones included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        """Cut text into token ids; special tokens written out in it are recognised.

        Of the library's calls only the batch ones let go of the interpreter lock, so this one can run beside an event
        loop.
        """
        return tuple(self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a whole sequence, special tokens left out and unknown ids dropped."""
        return str(self._backend.decode(token_ids, skip_special_tokens=True))

    def id_of(self, token: str) -> int | None:
        """The id of a token given by its written form."""
        found = self._backend.token_to_id(token)
        return None if found is None else int(found)

    def knows(self, token_id: int) -> bool:
        """Whether the id is in the vocabulary; an engine's may be larger."""
        return self._backend.id_to_token(token_id) is not None

    def is_special(self, token_id: int) -> bool:
        """Whether it controls the model rather than being part of an answer's text."""
        return token_id in self._special

    def token_bytes(self, token_id: int) -> bytes:
        """What one token stands for, maybe a part of a UTF-8 character; U+FFFD for ids outside the vocabulary."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._token_bytes(token_id)
        return known

    def detokenizer(self) -> Detokenizer:
        """A fresh one for one answer."""
        return ByteDetokenizer(self) if self._byte_level else WindowDetokenizer(self)

    def _token_bytes(self, token_id: int) -> bytes:
        token = self._backend.id_to_token(token_id)
        if token is None:
            return REPLACEMENT.encode()
        if self._byte_level:
            return _from_alphabet(token)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return str(token).replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()


def _is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    """Whether the decoder only maps GPT-2's byte alphabet back, so that tokens decode one by one."""
    if backend.decoder is None:
        return False
    state = json.loads(backend.decoder.__getstate__())
    parts = state["decoders"] if state["type"] == "Sequence" else [state]
    return [part["type"] for part in parts] == ["ByteLevel"]


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's one printable character per byte: most bytes stand for themselves, the others start at U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def _from_alphabet(token: str) -> bytes:
    """Bytes of a token written in the alphabet; a token with a character outside of it stands for itself."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode()
