"""Finds marks in text that comes in pieces, and holds back what may become one."""

from collections.abc import Sequence


class MarkWatch:
    """Lets text pass up to the first of some marks.

    Args:
        marks: none empty, none the beginning of another.
    """

    def __init__(self, marks: Sequence[str]) -> None:
        self._marks = tuple(marks)
        self._longest = max(map(len, marks), default=1)
        self._held = ""

    def feed(self, text: str) -> tuple[str, str, str]:
        """The text before the first mark, the mark, and what follows it; the latter two are empty if there is none."""
        text = self._held + text
        self._held = ""
        found = [(position, mark) for mark in self._marks if (position := text.find(mark)) >= 0]
        if found:
            position, mark = min(found)
            return text[:position], mark, text[position + len(mark) :]
        passing = len(text) - self._num_held(text)
        self._held = text[passing:]
        return text[:passing], "", ""

    def flush(self) -> str:
        """What was held back for a mark that never came."""
        held, self._held = self._held, ""
        return held

    def _num_held(self, text: str) -> int:
        """Length of the longest end of the text that begins a mark."""
        tail = text[1 - self._longest :] if self._longest > 1 else ""
        for mark in self._marks:
            if mark[0] in tail:
                break
        else:
            return 0
        for start in range(len(tail)):
            if any(mark.startswith(tail[start:]) for mark in self._marks):
                return len(tail) - start
        return 0
