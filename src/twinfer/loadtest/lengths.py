"""Lengths in tokens, drawn from a distribution that a short text names."""

import math
import random
import re
from dataclasses import dataclass

from twinfer.core.errors import ConfigError

_NUMBER = r"(\d+(?:\.\d+)?)"
_FORMS = {
    "fixed": re.compile(rf"{_NUMBER}()"),
    "uniform": re.compile(rf"{_NUMBER}\.\.{_NUMBER}"),
    "normal": re.compile(rf"normal:{_NUMBER},{_NUMBER}"),
    "lognormal": re.compile(rf"lognormal:{_NUMBER},{_NUMBER}"),
}
MAX_TOKENS = 10_000_000


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution.

    Attributes:
        form: fixed, uniform, normal or lognormal.
        first, second: the length; lowest and highest; mean and deviation; median and deviation of the logarithm.
    """

    form: str
    first: float
    second: float

    def draw(self, dice: random.Random) -> int:
        """One length, at least 1."""
        if self.form == "fixed":
            value = self.first
        elif self.form == "uniform":
            value = dice.randint(int(self.first), int(self.second))
        elif self.form == "normal":
            value = dice.gauss(self.first, self.second)
        else:
            value = dice.lognormvariate(math.log(self.first), self.second)
        return min(MAX_TOKENS, max(1, round(value)))


def read_lengths(text: str, option: str) -> Lengths:
    """Read ``256``, ``64..512``, ``normal:256,64`` or ``lognormal:256,0.7``.

    Raises:
        ConfigError: it is none of these; names the option.
    """
    for form, pattern in _FORMS.items():
        if found := pattern.fullmatch(text.strip()):
            first, second = float(found[1]), float(found[2] or 0)
            if 1 <= first <= MAX_TOKENS and (form != "uniform" or first <= second <= MAX_TOKENS):
                return Lengths(form, first, second)
    raise ConfigError(
        f"{option} {text!r} is no length: write 256, 64..512, normal:256,64 (mean, deviation) "
        "or lognormal:256,0.7 (median, deviation of the logarithm), of at least 1"
    )
