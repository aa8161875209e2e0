"""Text of a wanted length, from numbers: the same numbers give the same text, so that prefixes are shared for real.

A server remembers the prefixes of earlier runs as well, and would answer the second of two equal runs sooner. So every
run has a nonce that changes the first words of each stretch: its texts are as long as, and unlike, those of other runs.

Every word has four letters, so that a text of n words is a slice. How many words make a token is the tokenizer's
affair: a run asks the server before it begins (``calibrate``).
"""

import hashlib
import random
from dataclasses import dataclass

_SPELT = """
able area army away baby back ball band bank base bear beat been best bird blue boat body bone book born both bowl
burn busy cake call calm came camp card care case cast chat city club coal coat code cold come cook cool copy corn
cost crew crop dark data date dawn days deal deep deer desk diet dish door down draw drop dust duty each earn east
easy edge even ever face fact fair fall farm fast fear feed feel feet file fill film find fine fire firm fish five
flag flat flow food foot form four free from fuel full fund gain game gate gave gift girl give glad goal goat gold
golf good grow hair half hall hand hard have head hear heat help here hero high hill hold home hope horn host hour
huge hunt idea inch into iron item jazz join jump just keep kept kind king knee knew know lack lady lake lamp land
last late lawn lead leaf left lend less life lift like line lion list live load loan lock long look lost loud love
luck lung made mail main make many mark mass meal mean meat meet mild mile milk mind mine miss mode mood moon more
most move much must name near neck need news next nice nine none noon nose note oven over pack page pain pair palm
park part past path peak pick pile pine pink pipe plan play plot poem pole poll pool poor port post pour pure push
race rain rank
"""
WORDS = tuple(_SPELT.split())
LETTERS = 5
"""A word's, with the space before it."""
POOL_WORDS = 1 << 16


@dataclass(frozen=True, slots=True)
class Passage:
    """A prompt of a wanted length.

    Attributes:
        stretches: what each stretch holds; equal numbers mean equal text.
        stretch_tokens: length of each; the last one may be cut short.
        num_tokens: of all.
    """

    stretches: tuple[int, ...]
    stretch_tokens: int
    num_tokens: int


class Writer:
    """Writes passages.

    Args:
        seed: of the text.
        nonce: of the run.
        words_per_token: of the server's tokenizer, on such text.
        overhead_tokens: what the server counts beside the text, as a chat template's.
    """

    def __init__(self, seed: int, nonce: int = 0, words_per_token: float = 1.0, overhead_tokens: float = 0.0) -> None:
        self._seed = seed
        self.nonce = nonce
        self._pool = "".join(f" {word}" for word in random.Random(f"{seed}/pool").choices(WORDS, k=POOL_WORDS))
        self.words_per_token = words_per_token
        self.overhead_tokens = overhead_tokens

    def text(self, passage: Passage) -> str:
        """The passage's text, of about as many tokens as it should have and at least one word."""
        size = passage.stretch_tokens
        wanted = max(1, round((passage.num_tokens - self.overhead_tokens) * self.words_per_token))
        parts, begun = [], 0
        for index, number in enumerate(passage.stretches, 1):
            end = min(wanted, round(index * size * self.words_per_token))
            parts.append(self._stretch(number, end - begun))
            begun = end
        return "".join(parts).lstrip()

    def _stretch(self, number: int, num_words: int) -> str:
        """Begins with words that are this stretch's alone, in this run; goes on somewhere in the pool."""
        digest = hashlib.blake2b(f"{self._seed}/{self.nonce}/{number}".encode(), digest_size=6).digest()
        start = (number * 2654435761 + self._seed) % POOL_WORDS * LETTERS
        text = "".join(f" {WORDS[byte]}" for byte in digest) + self._pool[start:]
        wanted = num_words * LETTERS
        while len(text) < wanted:
            text += self._pool
        return text[:wanted]
