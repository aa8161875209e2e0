"""Text to token ids and back, by the model's own ``tokenizer.json``."""

import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from twinfer.core.errors import CheckpointError
from twinfer.gateway.text.detokenizer import REPLACEMENT, ByteDetokenizer, Detokenizer, WindowDetokenizer
from twinfer.grammar.token_table import is_byte_level, token_bytes


class Tokenizer:
    """A model's vocabulary, and the rules to cut text into it."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._special = frozenset(i for i, token in backend.get_added_tokens_decoder().items() if token.special)
        self._byte_level = backend.decoder is not None and is_byte_level(json.loads(backend.decoder.__getstate__()))
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

    def text_bytes(self, token_id: int) -> bytes:
        """The same, and nothing for those that control the model."""
        return b"" if token_id in self._special else self.token_bytes(token_id)

    def detokenizer(self) -> Detokenizer:
        """A fresh one for one answer."""
        return ByteDetokenizer(self) if self._byte_level else WindowDetokenizer(self)

    def _token_bytes(self, token_id: int) -> bytes:
        token = self._backend.id_to_token(token_id)
        if token is None:
            return REPLACEMENT.encode()
        return token_bytes(str(token), byte_level=self._byte_level)
