"""Answers that a model without sense would give: any token that a grammar permits."""

from random import Random

import msgspec
import numpy as np

from tests.fakes import a_request
from twinfer.core.request import Grammar
from twinfer.core.step import Slice
from twinfer.grammar.masks import GrammarMasks
from twinfer.grammar.token_table import TokenTable
from twinfer.grammar.vocabulary import Vocabulary

CLOSING = (b'"', b"}", b"]", b"</")


class Walker:
    """Draws answers over one vocabulary."""

    def __init__(self, table: TokenTable, end: int) -> None:
        self.vocabulary = Vocabulary(table)
        self._closing = [index for index, token in enumerate(table.tokens) if token.startswith(CLOSING)]
        self._masks = GrammarMasks(self.vocabulary)
        self._end = end

    def answer(self, source: str, rng: Random, max_tokens: int = 600) -> list[int] | None:
        """Token ids up to the end; ``None`` if there was none soon enough. What closes something is preferred."""
        request = msgspec.structs.replace(a_request((0,)), grammar=Grammar(source, (self._end,)))
        emitted: list[int] = []
        for index in range(max_tokens):
            masks = self._masks.compute([Slice(request, (0,), 0, (0,), index, emitted)])
            assert masks.failed == ()
            permitted = np.flatnonzero(np.unpackbits(np.frombuffer(masks.bits, np.uint8), bitorder="little")).tolist()
            if self._end in permitted and (len(permitted) == 1 or rng.random() < 0.2):
                self._masks.compute([])
                return emitted
            permitted = [token_id for token_id in permitted if token_id != self._end]
            closing = sorted(set(permitted).intersection(self._closing))
            emitted.append(rng.choice(closing if closing and rng.random() < 0.5 else permitted))
        self._masks.compute([])
        return None
