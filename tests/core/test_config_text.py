"""The configuration: defaults written once, every mistake named with the key and a way out."""

import pytest

from twinfer.core.config import Config
from twinfer.core.config_text import dump_config, parse_config
from twinfer.core.errors import ConfigError


def test_nothing_given_is_the_defaults() -> None:
    """No file and no overrides give the tree of defaults."""
    assert Config() == parse_config()


def test_effective_configuration_reads_back() -> None:
    """What is printed at start is a file that means the same."""
    config = parse_config("[[pool]]\nname='both'\nrole='both'\nengine='emulated'\n", ["gateway.port=9000"])
    assert config == parse_config(dump_config(config))
    assert config.gateway.port == 9000
    assert [pool.name for pool in config.pool] == ["both"]


@pytest.mark.parametrize(
    ("override", "value"),
    [("pool.decode.kv_mib=64", 64), ("pool.1.kv_mib=65", 65), ("pool.decode.kv_mib = 66", 66)],
)
def test_override_names_a_table_of_an_array(override: str, value: int) -> None:
    """By name or by index, and only that one."""
    config = parse_config(overrides=[override])
    assert (512, value) == (config.pool[0].kv_mib, config.pool[1].kv_mib)


def test_override_that_is_no_toml_is_a_string() -> None:
    """Nobody wants to quote twice in a shell."""
    assert parse_config(overrides=["model.0.source=/models/llama"]).model[0].source == "/models/llama"


@pytest.mark.parametrize(
    ("text", "overrides", "sentence"),
    [
        ("[gatway]\nport=1", [], "unknown key 'gatway'.*did you mean 'gateway'"),
        ("[[pool]]\nname='a'\nrole='both'\nwieghts='bf16'", [], "'pool.wieghts'.*did you mean 'weights'"),
        ("[gateway]\nport='x'", [], "key 'gateway.port': Expected `int`"),
        ("[[pool]]\nname='a'\nrole='cook'", [], r"key 'pool\[0\].role': Invalid enum value 'cook'"),
        ("port = ", [], "is not TOML"),
        ("", ["gateway.port"], "has no value"),
        ("", ["pool.nobody.kv_mib=1"], "there is no 'nobody'; known are prefill, decode"),
        ("", ["pool.kv_mib=1"], "name one of them"),
        ("", ["cache_dir.x=1"], "nothing lies below 'cache_dir'"),
        ("", ["handoff.leas_s=1"], "did you mean 'lease_s'"),
    ],
)
def test_mistakes_are_named(text: str, overrides: list[str], sentence: str) -> None:
    """One sentence, with the key and what to do."""
    with pytest.raises(ConfigError, match=sentence):
        parse_config(text, overrides)
