"""Prompt lookup: what an answer will say next may be what followed the same words earlier, in its prompt or in itself.

Drafts cost rows of a step, and a step that reads all weights has rows to spare; but not without limit. So a draft that
was wholly wrong makes the next ones shorter and rarer, and one that was wholly right makes them longer. Drafts never
change an answer: every drafted token is drawn by the model anyway, and counts only as far as draws and draft agree.

Source: "Prompt lookup decoding" (A. Saxena, 2023), and speculative decoding by n-grams in vLLM.
"""

from collections.abc import Sequence

GRAM = 3
"""Tokens that must be the same for what followed them to be drafted."""
FIRST_LENGTH = 3
MAX_LENGTH = 7
MAX_SILENCE = 64
"""Output tokens without a draft, at most, after drafts that were wrong."""


class PromptLookup:
    """Drafts for one sequence."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._tokens = list(prompt)
        self._num_prompt = len(prompt)
        self._next: dict[tuple[int, ...], int] = {}
        """The position after the last time that each gram occurred, of those that something follows."""
        self._num_indexed = GRAM
        self._length = FIRST_LENGTH
        self._silence = 1
        self._silent_until = 0
        self._drafted: list[int] = []
        self._drafted_at = 0

    def draft(self, output: Sequence[int], room: int) -> list[int]:
        """At most ``room`` tokens that may follow the prompt and this output, which only ever grows."""
        self._tokens += output[len(self._tokens) - self._num_prompt :]
        self._learn()
        self._index()
        if len(self._tokens) < self._silent_until:
            return []
        start = self._next.get(tuple(self._tokens[-GRAM:]))
        if start is not None:
            self._drafted = self._tokens[start : start + min(room, self._length)]
            self._drafted_at = len(self._tokens)
        return self._drafted

    def _learn(self) -> None:
        """Hold the last draft against what came."""
        drafted, self._drafted = self._drafted, []
        if not drafted:
            return
        came = self._tokens[self._drafted_at :]
        if came[: len(drafted)] == drafted:
            self._length = min(2 * self._length, MAX_LENGTH)
            self._silence = 1
        elif came[0] != drafted[0]:
            self._length = max(1, self._length // 2)
            self._silence = min(2 * self._silence, MAX_SILENCE)
            self._silent_until = len(self._tokens) + self._silence

    def _index(self) -> None:
        """Take in the grams that something follows now."""
        for position in range(self._num_indexed, len(self._tokens)):
            self._next[tuple(self._tokens[position - GRAM : position])] = position
        self._num_indexed = max(self._num_indexed, len(self._tokens))
