"""Token ids to text as they come: never half a character, and in sum exactly the text of the whole sequence.

Ids outside the vocabulary become U+FFFD, because an emulated engine draws from more ids than a tokenizer has.
"""

import codecs
from collections.abc import Sequence
from typing import Protocol

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Vocabulary(Protocol):
    """What a detokenizer needs of a tokenizer."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a whole sequence."""
        ...

    def knows(self, token_id: int) -> bool:
        """Whether the id is in the vocabulary."""
        ...

    def text_bytes(self, token_id: int) -> bytes:
        """What one token stands for in a text; nothing for one that is left out of it."""
        ...


class Detokenizer(Protocol):
    """The text of one answer in the making."""

    def feed(self, token_id: int) -> str:
        """The text that became certain with this token."""
        ...

    def finish(self) -> str:
        """What was held back: an incomplete character, as U+FFFD."""
        ...


class ByteDetokenizer:
    """For byte-level vocabularies, where every token is some bytes whatever stands beside it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._text_bytes = vocabulary.text_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        """The characters completed by this token."""
        return self._utf8.decode(self._text_bytes(token_id))

    def finish(self) -> str:
        """An incomplete character, as U+FFFD."""
        return self._utf8.decode(b"", final=True)


class WindowDetokenizer:
    """For every other vocabulary: the text grows by what decoding a window of the last tokens grows by.

    The window is the tokens last shown, on which spaces and byte fallback of the next may depend, and the fresh ones.
    What was shown stays shown: where a run of fallback bytes turns out invalid after whole characters of it were
    shown, the library would take those back and this cannot.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._context: list[int] = []
        self._fresh: list[int] = []

    def feed(self, token_id: int) -> str:
        """The text that became certain with this token."""
        if not self._vocabulary.knows(token_id):
            return self.finish() + REPLACEMENT
        self._fresh.append(token_id)
        text = self._fresh_text()
        if not text or text.endswith(REPLACEMENT):
            return ""
        self._context, self._fresh = self._fresh, []
        return text

    def finish(self) -> str:
        """What was held back; the context stays, so that feeding may go on."""
        text = self._fresh_text()
        self._fresh = []
        return text

    def _fresh_text(self) -> str:
        known = self._vocabulary.decode(self._context)
        return self._vocabulary.decode(self._context + self._fresh)[len(known) :]
