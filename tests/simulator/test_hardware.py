"""What pools of a configuration are made of."""

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from tests.simulator.small import a_config, on_devices
from twinfer.cli.emulation import simulated_pair
from twinfer.core.config import Config
from twinfer.core.errors import ConfigError
from twinfer.devices.model_config import load_shape
from twinfer.simulator.hardware import Hardware, hardware


def parts(config: Config, **links: str) -> dict[str, Hardware]:
    """Of all pools."""
    return {pool.name: hardware(config.model[0], pool, Path("nowhere"), links) for pool in config.pool}


def test_the_pair() -> None:
    """Trainium3 and two wafers: their links, prices as far as they are known, and the worst number."""
    found = parts(simulated_pair("trn3", "cs3", "gpt-oss-120b"))
    prefill, decode = found["prefill"], found["decode"]
    assert ("efa-trn3", None, 1000.0) == (prefill.link.name, prefill.price_per_hour, prefill.power_w)
    assert ("cs3-inlet", 2 * 41.96, 2 * 23_000.0) == (decode.link.name, decode.price_per_hour, decode.power_w)
    assert {"estimate"} == {one.quality.value for one in found.values()}
    assert 2 * prefill.link.line_bytes_per_s.value < decode.port().bytes_per_s


def test_bytes_of_kv() -> None:
    """Pieces of a context add up to what the shape has for the whole: windowed layers keep the end only."""
    prefill = parts(simulated_pair("h100", "h100", "gpt-oss-120b"))["prefill"]
    cuts = [0, 64, 100, 512, 4096, 50_000]
    pieces = [prefill.kv_bytes(start, end) for start, end in pairwise(cuts)]
    assert load_shape("gpt-oss-120b").kv_bytes(50_000) == pytest.approx(sum(pieces))
    assert pieces[0] / 64 == pytest.approx(2 * pieces[-1] / 45_904)


def test_another_link() -> None:
    """The one that is asked for; a pool without a device has one that fits this machine."""
    assert "nvlink4" == parts(on_devices(a_config(), "h100"), decode="nvlink4")["decode"].link.name
    assert "tcp" == parts(a_config())["decode"].link.name


def test_only_what_is_emulated() -> None:
    """The simulator cannot know how long torch takes."""
    config = a_config()
    with pytest.raises(ConfigError, match="only emulated pools"):
        hardware(config.model[0], msgspec.structs.replace(config.pool[0], engine="native"), Path("nowhere"), {})
