"""What pools of a configuration are made of."""

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from tests.simulator.small import a_config, on_devices
from twinfer.cli.emulation import simulated_pair
from twinfer.core.config import Config, EmulationConfig, LinkEmulationConfig, ModelConfig, PoolConfig
from twinfer.core.errors import ConfigError
from twinfer.devices.catalogue import Catalogue, measured_directory
from twinfer.devices.model_config import load_shape
from twinfer.devices.transfer import bytes_per_second
from twinfer.devices.write import write_entry
from twinfer.model.checkpoint import locate
from twinfer.simulator.hardware import Hardware, hardware
from twinfer.simulator.links import port as link_port


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


def test_a_router_hears_of_the_kv_that_is_meant() -> None:
    """Layouts count bytes of the shape, not of the few that an emulated pool would hold; and costs are known."""
    decode = parts(simulated_pair("h100", "h100", "llama-3.1-8b"))["decode"]
    assert decode.kv_bytes(0, 1) == decode.capabilities.layout.token_bytes == 131_072
    assert decode.seed is not None
    assert decode.seed.chunk_tokens == decode.pool.max_step_tokens


def test_another_link() -> None:
    """The one that is asked for; a pool without a device has one that fits this machine."""
    assert "nvlink4" == parts(on_devices(a_config(), "h100"), decode="nvlink4")["decode"].link.name
    assert "tcp" == parts(a_config())["decode"].link.name


def test_an_emulated_link() -> None:
    """The configuration's, as many lanes of it and as slow as it says, unless another is named."""
    config, wanted = on_devices(a_config(), "h100"), LinkEmulationConfig("efa-p5en", lanes=2, time_scale=10.0)
    pool = config.pool[0]
    found = hardware(config.model[0], pool, Path("nowhere"), {}, wanted)
    link = found.link
    rate = 2 * bytes_per_second(link, found.block_bytes) / 10
    assert ("efa-p5en", rate, 10 * link.latency_s.value) == (
        link.name,
        found.port().bytes_per_s,
        found.port().latency_s,
    )
    named = hardware(config.model[0], pool, Path("nowhere"), {pool.name: "nvlink4"}, wanted)
    assert ("nvlink4", link_port(named.link, 1, named.block_bytes)) == (named.link.name, named.port())


def a_native_pool(**changes: object) -> PoolConfig:
    """One that torch would compute."""
    return msgspec.structs.replace(a_config().pool[0], engine="native", emulation=EmulationConfig(), **changes)


def test_a_native_pool_takes_the_times_of_a_measured_machine(tmp_path: Path) -> None:
    """The device ``this`` with the checkpoint's shape, its KV as native workers keep it."""
    h100 = Catalogue().device("h100")[0]
    write_entry(msgspec.structs.replace(h100, name="this"), measured_directory(tmp_path))
    pool = a_native_pool(weights="int8", block_tokens=16)
    found = hardware(ModelConfig(id="m"), pool, tmp_path, {pool.name: "shm"})
    shape, layout = load_shape(str(locate("demo"))), found.capabilities.layout
    assert ("native", "1 x this with demo in fp8") == (found.pool.engine, found.title)
    assert (shape.num_layers, shape.num_kv_heads, "bf16") == (layout.num_layers, layout.num_kv_heads, layout.dtype)
    assert pool.kv_mib * 2**20 // layout.block_bytes == found.capabilities.num_blocks


def test_what_is_not_known_of_native_pools(tmp_path: Path) -> None:
    """A machine that was not measured, and weights that no device of the catalogue has."""
    with pytest.raises(ConfigError, match="devices measure --model DIR --write"):
        hardware(ModelConfig(id="m"), a_native_pool(), tmp_path, {})
    on_h100 = a_native_pool(weights="fp32")
    on_h100 = msgspec.structs.replace(on_h100, emulation=EmulationConfig(device="h100"))
    with pytest.raises(ConfigError, match="times of fp32 weights are not known"):
        hardware(ModelConfig(id="m"), on_h100, tmp_path, {})
