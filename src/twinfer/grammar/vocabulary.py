"""A model's tokens as grammars see them. All that this project asks of llguidance is asked here and in ``masks``."""

from collections.abc import Sequence
from pathlib import Path

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from twinfer.grammar.token_table import TOKENIZER_FILE, TokenTable, read_token_table


class Vocabulary:
    """Tokens arranged for the search of those that a grammar permits; takes a while to make of a large table."""

    def __init__(self, table: TokenTable) -> None:
        self.size = len(table.tokens)
        """Token ids are below it. The id that equals it stands for the end of an answer in masks."""
        self._tokenizer = LLTokenizer(TokenizerWrapper(_Tokens(table)))

    def matcher(self, source: str) -> LLMatcher:
        """A matcher at its start; what is wrong with the grammar is its error."""
        return LLMatcher(self._tokenizer, source, log_level=0)

    def complaint(self, source: str) -> str:
        """Why a grammar cannot be used, in one line; empty if it can. May take as long as a step, or many."""
        matcher = self.matcher(source)
        if not matcher.get_error():
            matcher.compute_bitmask()
        return matcher.get_error().partition("\n")[0]


def has_vocabulary(directory: Path) -> bool:
    """Whether a checkpoint tells the bytes of its tokens, so that answers can be held to a grammar."""
    return (directory / TOKENIZER_FILE).is_file()


def load_vocabulary(directory: Path, size: int) -> Vocabulary | None:
    """The vocabulary of a checkpoint; ``None`` if it has no ``tokenizer.json``.

    Args:
        directory: of the checkpoint.
        size: of the model's vocabulary.

    Raises:
        CheckpointError: the file is not a tokenizer's.
    """
    return Vocabulary(read_token_table(directory / TOKENIZER_FILE, size)) if has_vocabulary(directory) else None


class _Tokens:
    """A table in the words of llguidance, with an end of its own: which ids end an answer is each request's."""

    bos_token_id = None

    def __init__(self, table: TokenTable) -> None:
        self.eos_token_id = len(table.tokens)
        self.tokens: Sequence[bytes] = [*table.tokens, b"<|end of answer|>"]
        self.special_token_ids: Sequence[int] = [*table.special, self.eos_token_id]

    def __call__(self, text: bytes) -> Sequence[int]:
        """Asked only by grammars without ``no_forcing``, which would have text cut in one way alone."""
        raise NotImplementedError("there is no tokenizer behind grammars; set no_forcing in them")
