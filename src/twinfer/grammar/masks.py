"""Which tokens each sequence of a step may draw.

1. ``begin`` is called before a step is computed, and works on a thread of its own while the step is: what is permitted
   depends on the tokens drawn before it only.
2. A sequence has a matcher as long as every step has something of it; one that comes back has it made again. A matcher
   reads the tokens that were emitted since it was asked last, so whatever went before, here or elsewhere, is replayed.
3. A guess is read, masked and taken back. What follows one that the grammar forbids is never used, and has no mask.
"""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from twinfer.core.ids import RequestId
from twinfer.core.request import Grammar
from twinfer.core.step import Slice
from twinfer.grammar.vocabulary import Vocabulary

Bits = NDArray[np.uint8]
MAX_GRAMMARS = 64
"""Compiled ones that are kept for the next request with the same."""


@dataclass(frozen=True, slots=True)
class Masks:
    """What the rows of a step may draw.

    Attributes:
        rows: those that are held to a grammar, by their place among the slices that draw; rising.
        bits: ``[len(rows), ceil(vocab / 8)]``: a bit for each token, the lowest first; at least one in each row.
        failed: requests that cannot go on, and why; none of their rows is among ``rows``.
    """

    rows: tuple[int, ...]
    bits: Bits
    failed: tuple[tuple[RequestId, str], ...] = ()


NO_MASKS = Masks((), np.empty((0, 0), np.uint8))


class _Forbidden(Exception):
    """A sequence is not what its grammar permits, or the grammar became too much to follow."""


class GrammarMasks:
    """Masks for consecutive steps of one engine."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._sequences: dict[RequestId, _Follower] = {}
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "grammar-masks")

    def begin(self, slices: Sequence[Slice]) -> "Future[Masks] | None":
        """Start on the masks of a step; ``None`` where no sequence of it is held to a grammar."""
        if not self._sequences and all(part.request.grammar is None for part in slices):
            return None
        return self._thread.submit(self.compute, slices)

    def compute(self, slices: Sequence[Slice]) -> Masks:
        """The masks of a step."""
        self._keep(slices)
        drawing = [part for part in slices if part.sample_index is not None]
        rows: list[int] = []
        bits: list[Bits] = []
        failed: dict[RequestId, str] = {}
        for row, part in enumerate(drawing):
            request_id, grammar = part.request.request_id, part.request.grammar
            if grammar is None or request_id in failed:
                continue
            try:
                found = self._sequences[request_id].permits(part)
            except _Forbidden as error:
                failed[request_id] = str(error)
                continue
            if found is not None:
                rows.append(row)
                bits.append(found)
        return Masks(tuple(rows), np.stack(bits) if bits else NO_MASKS.bits, tuple(failed.items()))

    def _keep(self, slices: Sequence[Slice]) -> None:
        """Followers of the sequences in this step, and of no others."""
        kept: dict[RequestId, _Follower] = {}
        for part in slices:
            request_id, grammar = part.request.request_id, part.request.grammar
            if grammar is not None and request_id not in kept:
                known = self._sequences.get(request_id)
                kept[request_id] = known or _Follower(self._matcher(grammar.source), grammar, self._vocabulary.size)
        self._sequences = kept

    def _matcher(self, source: str) -> LLMatcher:
        """A fresh matcher; what was compiled is shared."""
        found = self._compiled.pop(source, None) or self._vocabulary.matcher(source)
        self._compiled[source] = found
        if len(self._compiled) > MAX_GRAMMARS:
            self._compiled.popitem(last=False)
        return found.deep_copy()


class _Follower:
    """One sequence and its matcher."""

    def __init__(self, matcher: LLMatcher, grammar: Grammar, vocab_size: int) -> None:
        self._matcher = matcher
        self._end_ids = [token_id for token_id in grammar.end_ids if token_id < vocab_size]
        self._vocab_size = vocab_size
        self._read: list[int] = []

    def permits(self, part: Slice) -> Bits | None:
        """A row of ``Masks.bits``: what the slice may draw; ``None`` for a guess that follows one not permitted.

        Raises:
            _Forbidden: the sequence cannot go on.
        """
        emitted = list(part.emitted)
        known = len(self._read)
        if emitted[:known] != self._read:
            self._matcher.reset()
            self._read, known = [], 0
        fresh = emitted[known:]
        if part.is_guess:
            num_read = self._matcher.try_consume_tokens(fresh)
            found = self._permitted() if num_read == len(fresh) else None
            self._matcher.rollback(num_read)
            return found
        self._matcher.consume_tokens(fresh)
        self._read = emitted
        return self._permitted()

    def _permitted(self) -> Bits:
        size = self._vocab_size
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8).copy()
        if error := self._matcher.get_error():
            raise _Forbidden(f"the answer cannot follow its grammar: {error.partition(chr(10))[0]}")
        may_end = bits[size // 8] >> size % 8 & 1
        bits = bits[: -(-size // 8)]
        if size % 8:
            bits[-1] &= (1 << size % 8) - 1
        for token_id in self._end_ids:
            bit = np.uint8(1 << token_id % 8)
            bits[token_id // 8] = bits[token_id // 8] & ~bit | bit * may_end
        if not bits.any():
            raise _Forbidden("the answer cannot follow its grammar: the vocabulary has no token that it permits here")
        return bits
