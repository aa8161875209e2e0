"""What tokens cost: a TOML file of prices per million, of which the first that fits a request decides.

    currency = "USD"

    [[price]]
    model = "meta.*"       # patterns with * and ?; both may be left out
    tier = "flex"
    input = 0.075          # of a million tokens
    output = 0.30
    cache_read = 0.0075
    cache_write = 0.09

Prices are decimal numbers and costs whole numbers of 10^-9, so that sums are exact.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from twinfer.core.errors import ConfigError
from twinfer.usage.record import Tokens

_NANO_PER_TOKEN = 1000
"""10^-9 for a token, where a million cost 1."""
_NUMBERS = ("input", "output", "cache_read", "cache_write")


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens of each kind cost."""

    model: str = "*"
    tier: str = "*"
    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    cache_read: Decimal = Decimal(0)
    cache_write: Decimal = Decimal(0)

    def cost_nano(self, tokens: Tokens) -> int:
        """Of one request, rounded half up."""
        exact = (
            self.input * tokens.input
            + self.output * tokens.output
            + self.cache_read * tokens.cache_read
            + self.cache_write * tokens.cache_write
        ) * _NANO_PER_TOKEN
        return int(exact.to_integral_value(ROUND_HALF_UP))


@dataclass(frozen=True, slots=True)
class PriceList:
    """All prices, in the file's order."""

    prices: Sequence[Price] = ()
    currency: str = ""

    def cost_nano(self, model: str, tier: str, tokens: Tokens) -> int | None:
        """Of one request; ``None`` where no price fits it."""
        for price in self.prices:
            if fnmatchcase(model, price.model) and fnmatchcase(tier, price.tier):
                return price.cost_nano(tokens)
        return None


def read_prices(path: str) -> PriceList:
    """Read a price file; an empty path is an empty list.

    Raises:
        ConfigError: it cannot be read, or is no list of prices.
    """
    if not path:
        return PriceList()
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the price file {path} cannot be read: {error}") from error
    unknown = sorted(found.keys() - {"currency", "price"})
    tables = found.get("price", [])
    if unknown or not isinstance(tables, list) or not isinstance(found.get("currency", ""), str):
        raise ConfigError(f"the price file {path} needs `currency` as text and [[price]] tables, and nothing else")
    return PriceList(tuple(_price(path, table) for table in tables), found.get("currency", ""))


def _price(path: str, table: Any) -> Price:
    """One table.

    Raises:
        ConfigError: a key is unknown, or its value is no price.
    """
    if not isinstance(table, dict):
        raise ConfigError(f"the price file {path} has a `price` that is no table; write [[price]]")
    for name, value in table.items():
        if name in ("model", "tier"):
            fits = isinstance(value, str)
        else:
            fits = name in _NUMBERS and isinstance(value, int | Decimal) and not isinstance(value, bool)
            fits = fits and Decimal(value).is_finite() and value >= 0
        if not fits:
            raise ConfigError(
                f"the price file {path} has {name} = {value!r}; a [[price]] has `model` and `tier` as patterns, and "
                f"{', '.join(_NUMBERS)} as numbers from 0 for a million tokens"
            )
    numbers = {name: Decimal(table.get(name, 0)) for name in _NUMBERS}
    return Price(table.get("model", "*"), table.get("tier", "*"), **numbers)
