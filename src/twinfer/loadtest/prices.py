"""What the tokens cost: from the price of the machines by the hour, or from a price list by the token; and energy."""

import tomllib
from pathlib import Path

import msgspec

from twinfer.core.errors import ConfigError


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price file (TOML). Prices are in one currency, whatever it is called.

    Args:
        currency: its name.
        per_hour: of everything that serves.
        per_million_input, per_million_output: of a service that sells tokens.
        power_w: of everything that serves, under this load.
        source: where the numbers are from.
    """

    currency: str = "USD"
    per_hour: float | None = None
    per_million_input: float | None = None
    per_million_output: float | None = None
    power_w: float | None = None
    source: str = ""


class Costs(msgspec.Struct, frozen=True):
    """Of a run.

    Args:
        per_million_output: all costs over the output tokens.
        per_million_tokens: all costs over tokens in and out.
        joule_per_output_token: all energy over the output tokens.
    """

    currency: str
    per_million_output: float | None
    per_million_tokens: float | None
    joule_per_output_token: float | None


def read_prices(path: Path) -> Prices:
    """Read a price file.

    Raises:
        ConfigError: it cannot be read, or holds what is no price.
    """
    try:
        prices = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Prices)
    except OSError as error:
        raise ConfigError(f"cannot read the prices {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        known = ", ".join(Prices.__struct_fields__)
        raise ConfigError(f"{path} is no price file: {error}; it may hold {known}") from error
    numbers = (prices.per_hour, prices.per_million_input, prices.per_million_output, prices.power_w)
    if any(number is not None and not 0 <= number < 1e12 for number in numbers):
        raise ConfigError(f"{path}: prices and power cannot be negative")
    return prices


def costs(prices: Prices, duration_s: float, input_tokens: int, output_tokens: int) -> Costs | None:
    """What a run cost per token; ``None`` where nothing came out."""
    if not output_tokens or duration_s <= 0:
        return None
    total: float | None = None
    if prices.per_hour is not None:
        total = prices.per_hour * duration_s / 3600
    elif prices.per_million_input is not None or prices.per_million_output is not None:
        by_token = input_tokens * (prices.per_million_input or 0) + output_tokens * (prices.per_million_output or 0)
        total = by_token * 1e-6
    return Costs(
        prices.currency,
        None if total is None else total / output_tokens * 1e6,
        None if total is None else total / (input_tokens + output_tokens) * 1e6,
        None if prices.power_w is None else prices.power_w * duration_s / output_tokens,
    )
