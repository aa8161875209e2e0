"""Which tokens each sequence of a step may draw.

1. Masks are made once a step's logits are under way: a device of its own goes on computing meanwhile. A thread for
   them would be no gain on a CPU, whose cores all compute the step, and would fight for the interpreter's lock.
2. A sequence has a matcher as long as every step has something of it; one that comes back has it made again. A matcher
   reads the tokens that were emitted since it was asked last, so whatever went before, here or elsewhere, is replayed.
3. A guess is read, masked and taken back. What follows one that the grammar forbids is never used, and has no mask.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from llguidance import LLMatcher

from twinfer.core.ids import RequestId
from twinfer.core.request import Grammar
from twinfer.core.step import Slice
from twinfer.grammar.vocabulary import Vocabulary

MAX_GRAMMARS = 64
"""Compiled ones that are kept for the next request with the same."""


@dataclass(frozen=True, slots=True)
class Masks:
    """What the rows of a step may draw.

    Attributes:
        rows: those that are held to a grammar, by their place among the slices that draw; rising.
        bits: row after row, a bit for each token, the lowest first, in ``ceil(vocab / 8)`` bytes. Each row has one set.
        failed: requests that cannot go on, and why; none of their rows is among ``rows``.
    """

    rows: tuple[int, ...]
    bits: bytes
    failed: tuple[tuple[RequestId, str], ...] = ()

    def row_bits(self) -> list[bytes]:
        """The bits of each row."""
        size = len(self.bits) // max(1, len(self.rows))
        return [self.bits[size * place : size * (place + 1)] for place in range(len(self.rows))]


NO_MASKS = Masks((), b"")


class _Forbidden(Exception):
    """A sequence is not what its grammar permits, or the grammar became too much to follow."""


class GrammarMasks:
    """Masks for consecutive steps of one engine."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._sequences: dict[RequestId, _Follower] = {}
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def compute(self, slices: Sequence[Slice]) -> Masks:
        """The masks of a step."""
        kept: dict[RequestId, _Follower] = {}
        rows: list[int] = []
        bits: list[bytes] = []
        failed: dict[RequestId, str] = {}
        row = -1
        for part in slices:
            row += part.sample_index is not None
            request_id, grammar = part.request.request_id, part.request.grammar
            if grammar is None:
                continue
            follower = kept.get(request_id) or self._sequences.get(request_id) or self._follower(grammar)
            kept[request_id] = follower
            if part.sample_index is None or request_id in failed:
                continue
            try:
                found = follower.permits(part)
            except _Forbidden as error:
                failed[request_id] = str(error)
                continue
            if found is not None:
                rows.append(row)
                bits.append(found)
        self._sequences = kept
        if not kept:
            return NO_MASKS
        return Masks(tuple(rows), b"".join(bits), tuple(failed.items()))

    def _follower(self, grammar: Grammar) -> "_Follower":
        """One at the start of an answer; what was compiled is shared."""
        source = grammar.source
        found = self._compiled.pop(source, None) or self._vocabulary.matcher(source)
        self._compiled[source] = found
        if len(self._compiled) > MAX_GRAMMARS:
            self._compiled.popitem(last=False)
        return _Follower(found.deep_copy(), grammar, self._vocabulary.size)


class _Follower:
    """One sequence and its matcher."""

    def __init__(self, matcher: LLMatcher, grammar: Grammar, vocab_size: int) -> None:
        self._matcher = matcher
        self._end_ids = [token_id for token_id in grammar.end_ids if token_id < vocab_size]
        self._vocab_size = vocab_size
        self._nothing = bytes(-(-vocab_size // 8))
        self._emitted: Sequence[int] = ()
        self._num_read = 0

    def permits(self, part: Slice) -> bytes | None:
        """A row of ``Masks.bits``: what the slice may draw; ``None`` for a guess that follows one not permitted.

        Raises:
            _Forbidden: the sequence cannot go on.
        """
        if part.is_guess:
            return self._after_guesses(part.emitted[self._num_read :])
        if part.emitted is not self._emitted:  # the same list only ever grows
            self._matcher.reset()
            self._emitted, self._num_read = part.emitted, 0
        if len(part.emitted) == self._num_read + 1:
            self._matcher.consume_token(part.emitted[-1])
        else:
            self._matcher.consume_tokens(list(part.emitted[self._num_read :]))
        self._num_read = len(part.emitted)
        return self._permitted()

    def _after_guesses(self, guessed: Sequence[int]) -> bytes | None:
        num_read = self._matcher.try_consume_tokens(list(guessed))
        found = self._permitted() if num_read == len(guessed) else None
        self._matcher.rollback(num_read)
        return found

    def _permitted(self) -> bytes:
        bits = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            reason = self._matcher.get_error().partition("\n")[0]
            raise _Forbidden(f"the answer cannot follow its grammar: {reason}")
        may_end = bits[self._vocab_size // 8] >> self._vocab_size % 8 & 1
        permitted = self._with_ends(bits) if may_end else bits[: len(self._nothing)]
        if permitted == self._nothing:
            raise _Forbidden("the answer cannot follow its grammar: the vocabulary has no token that it permits here")
        return permitted

    def _with_ends(self, bits: bytes) -> bytes:
        """The request's own ends in place of the vocabulary's, which is no token of the model."""
        changed = bytearray(bits)
        changed[self._vocab_size // 8] &= ~(1 << self._vocab_size % 8)
        for token_id in self._end_ids:
            changed[token_id // 8] |= 1 << token_id % 8
        return bytes(changed[: len(self._nothing)])
