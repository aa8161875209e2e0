"""Two devices of the catalogue become a configuration that can be overridden like any other."""

import argparse
from pathlib import Path

import pytest

from twinfer.cli import parser
from twinfer.cli.configuration import load_config
from twinfer.cli.emulation import Surroundings, emulated_devices, emulated_pair
from twinfer.core.capabilities import Role
from twinfer.core.config import Config, LinkEmulationConfig
from twinfer.core.errors import ConfigError
from twinfer.engine.assemble import emulated_capabilities


def serve(*arguments: str) -> argparse.Namespace:
    """What ``twinfer serve`` is called with."""
    return parser().parse_args(["serve", *arguments])


def test_a_pair() -> None:
    """One pool for each side, both emulated, under the shape's name."""
    config = load_config(serve("--prefill", "trn3", "--decode", "cs3", "--set", "pool.decode.emulation.devices=4"))
    found = [(pool.role, pool.engine, pool.emulation.device, pool.emulation.devices) for pool in config.pool]
    assert [(Role.PREFILL, "emulated", "trn3", 0), (Role.DECODE, "emulated", "cs3", 4)] == found
    assert ("emulated.gpt-oss-120b", ("gpt-oss-120b",)) == (config.model[0].id, config.model[0].aliases)


def test_a_shape_of_its_own() -> None:
    """By name, and unknown ones by their near names."""
    config = load_config(serve("--prefill", "h200", "--decode", "cs3", "--model-shape", "llama-3.1-8b"))
    assert {"llama-3.1-8b"} == {pool.emulation.model_shape for pool in config.pool}
    with pytest.raises(ConfigError, match="no model shape 'llama'"):
        load_config(serve("--prefill", "h200", "--decode", "cs3", "--model-shape", "llama"))


def test_what_lies_between_them() -> None:
    """Virtual KV crosses the prefill device's EFA unless another link is named; times are stretched together."""
    config = load_config(serve("--prefill", "trn3", "--decode", "cs3", "--kv", "virtual", "--time-scale", "10"))
    assert {("virtual", 10.0)} == {(pool.emulation.kv, pool.emulation.time_scale) for pool in config.pool}
    assert LinkEmulationConfig("efa-trn3", 1, 10.0) == config.link.emulation
    named = load_config(serve("--prefill", "h200", "--decode", "cs3", "--link", "ethernet-100g"))
    assert ({"real"}, "ethernet-100g") == ({pool.emulation.kv for pool in named.pool}, named.link.emulation.device)
    assert "" == load_config(serve("--prefill", "h200", "--decode", "cs3")).link.emulation.device
    with pytest.raises(ConfigError, match="which link carries KV away from h200 is not known"):
        load_config(serve("--prefill", "h200", "--decode", "cs3", "--kv", "virtual"))
    with pytest.raises(ConfigError, match="give both --prefill and --decode"):
        load_config(serve("--kv", "virtual"))


def test_it_says_how_far_to_trust_it(tmp_path: Path) -> None:
    """One sentence for each emulated device, none for what is no device's."""
    assert [
        "prefill emulates 1 x trn3 with gpt-oss-120b in mxfp4: computed times, of quality estimate",
        "decode emulates 2 x cs3 with gpt-oss-120b in mxfp4: computed times, of quality estimate",
    ] == list(emulated_devices(emulated_pair("trn3", "cs3", "gpt-oss-120b"), tmp_path))
    assert [] == list(emulated_devices(Config(), tmp_path))
    surrounded = emulated_pair("trn3", "cs3", "gpt-oss-120b", Surroundings("virtual"))
    *_, decode, link = emulated_devices(surrounded, tmp_path)
    assert "decode emulates 2 x cs3 with gpt-oss-120b in mxfp4, its KV virtual: " == decode.partition("comp")[0]
    assert "KV travels as over efa-trn3, EFA of Trainium3: computed times, of quality estimate" == link


def test_a_pool_offers_no_more_kv_than_its_device_holds() -> None:
    """However much memory there is here."""
    config = emulated_pair("trn3", "cs3", "gpt-oss-120b")
    pool = config.pool[1]
    assert 1000 // pool.block_tokens == emulated_capabilities(config.model[0], pool, 1000).num_blocks
    unbounded = emulated_capabilities(config.model[0], pool).num_blocks
    assert unbounded == emulated_capabilities(config.model[0], pool, 10**12).num_blocks
