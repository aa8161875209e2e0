"""Price files."""

from pathlib import Path

import pytest

from twinfer.core.errors import ConfigError
from twinfer.usage.prices import PriceList, read_prices
from twinfer.usage.record import Tokens

FILE = """
currency = "USD"

[[price]]
model = "meta.*"
tier = "flex"
input = 0.075
output = 0.3

[[price]]
input = 0.15
output = 0.6
cache_read = 0.015
cache_write = 0.1875
"""


def read(tmp_path: Path, text: str) -> PriceList:
    """A list from a file."""
    path = tmp_path / "prices.toml"
    path.write_text(text)
    return read_prices(str(path))


def test_the_first_that_fits_decides(tmp_path: Path) -> None:
    """By model and tier; costs are whole numbers of 10^-9."""
    prices = read(tmp_path, FILE)
    tokens = Tokens(1000, 200, 100, 50)
    assert prices.currency == "USD"
    assert prices.cost_nano("meta.llama", "flex", tokens) == 75 * 1000 + 300 * 50
    assert prices.cost_nano("meta.llama", "default", tokens) == 150 * 1000 + 15 * 200 + 18_750 + 600 * 50


def test_sums_are_exact(tmp_path: Path) -> None:
    """Ten million requests at a price that no float holds cost ten million times one of them."""
    prices = read(tmp_path, "[[price]]\ninput = 0.1\n")
    assert prices.cost_nano("m", "default", Tokens(1)) == 100
    assert prices.cost_nano("m", "default", Tokens(10_000_000)) == 100 * 10_000_000


def test_no_price_is_no_cost(tmp_path: Path) -> None:
    """Rather than a cost of nothing."""
    assert read_prices("").cost_nano("m", "default", Tokens(5)) is None
    assert read(tmp_path, '[[price]]\nmodel = "x"\n').cost_nano("m", "default", Tokens(5)) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("price = 3", "needs `currency` as text"),
        ("[[prices]]", "needs `currency` as text"),
        ("currency = 1", "needs `currency` as text"),
        ("price = [1]", "no table"),
        ("[[price]]\ninput = -1", "input = -1"),
        ("[[price]]\ninput = nan", "input = "),
        ("[[price]]\ninput = true", "input = True"),
        ("[[price]]\nmodel = 1", "model = 1"),
        ("[[price]]\ninputs = 1", "inputs = 1"),
        ("[[price]", "cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    """That names file and key."""
    with pytest.raises(ConfigError, match=r"price file .*prices\.toml") as refused:
        read(tmp_path, text)
    assert said in str(refused.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prices(str(tmp_path / "absent.toml"))
