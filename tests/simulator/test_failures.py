"""What ``--fail`` says."""

import pytest

from twinfer.core.errors import ConfigError
from twinfer.simulator.failures import Failure, parse_failure


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("decode-0@120s+30s", Failure("decode-0", 120.0, 30.0, False)),
        ("decode-0@1.5", Failure("decode-0", 1.5, None, False)),
        ("link:prefill-12@60s+0.5s", Failure("prefill-12", 60.0, 0.5, True)),
        ("decode-0@60+30*10", Failure("decode-0", 60.0, 30.0, False, 10.0)),
        ("link:decode-0@60*2.5", Failure("decode-0", 60.0, None, True, 2.5)),
    ],
)
def test_forms(text: str, failure: Failure) -> None:
    """A worker or its link, a time, and perhaps how long."""
    assert failure == parse_failure(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "decode-0",
        "decode-0@",
        "decode-0@-3s",
        "@3s",
        "decode-0@3s+",
        "decode-0@3m",
        "decode-0@3s*",
        "decode-0@3s+1s*x",
    ],
)
def test_nonsense(text: str) -> None:
    """One sentence with the form."""
    with pytest.raises(ConfigError, match="decode-0@120s"):
        parse_failure(text)


def test_a_factor_of_nothing() -> None:
    """Nothing takes no time."""
    with pytest.raises(ConfigError, match="above 0"):
        parse_failure("decode-0@3s*0")
