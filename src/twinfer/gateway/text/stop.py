"""Stop strings: found wherever token boundaries fall, and nothing shown that may turn out to belong to one.

An Aho-Corasick automaton reads the text character by character. Its state's depth is the length of the longest end
of the text that could still become a stop string, which is what must be held back. The first stop string to be
complete wins; of several complete at once, the longest.
"""

from collections import deque
from collections.abc import Sequence


class StopSet:
    """The stop strings of one request, compiled; shared by its answers.

    Args:
        strings: none of them empty.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._match: list[str | None] = [None]
        for string in strings:
            self._insert(string)
        self._fallback = [0] * len(self._next)
        self._link()

    def __bool__(self) -> bool:
        return len(self._next) > 1

    def _insert(self, string: str) -> None:
        state = 0
        for character in string:
            child = self._next[state].get(character)
            if child is None:
                child = self._next[state][character] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._match.append(None)
            state = child
        self._match[state] = string

    def _link(self) -> None:
        """Point every state at the one for its longest proper end that also begins a stop string."""
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for character, child in self._next[state].items():
                self._fallback[child] = self.step(self._fallback[state], character)
                queue.append(child)
            if self._match[state] is None:
                self._match[state] = self._match[self._fallback[state]]

    def step(self, state: int, character: str) -> int:
        """The state after one more character."""
        while state and character not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(character, 0)

    def depth(self, state: int) -> int:
        """Characters at the text's end that may begin a stop string."""
        return self._depth[state]

    def match(self, state: int) -> str | None:
        """The longest stop string that is complete in this state."""
        return self._match[state]


class StopFinder:
    """Reads one answer's text and lets pass what is safe to show."""

    def __init__(self, stops: StopSet) -> None:
        self._stops = stops
        self._state = 0
        self._held = ""
        self.matched: str | None = None
        """The stop string that ended the text; nothing passes after it."""

    def feed(self, text: str) -> str:
        """The text that certainly stands before any stop string."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        state = self._state
        for position, character in enumerate(text):
            state = self._stops.step(state, character)
            self.matched = self._stops.match(state)
            if self.matched is not None:
                return self._release(self._held + text[: position + 1], len(self.matched))
        self._state = state
        return self._release(self._held + text, self._stops.depth(state))

    def finish(self) -> str:
        """What was held back for a stop string that never came; nothing after a match. The next text begins anew."""
        self._state = 0
        return "" if self.matched is not None else self._release(self._held, 0)

    def _release(self, text: str, keep: int) -> str:
        shown = len(text) - keep
        self._held = text[shown:]
        return text[:shown]
