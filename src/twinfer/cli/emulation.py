"""Emulated pools: made for two devices of the catalogue, and settled where they leave things to the tokenizer."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from twinfer.cluster.plan import model_of
from twinfer.core.capabilities import Role
from twinfer.core.config import (
    Config,
    EmulationConfig,
    HandoffConfig,
    LinkConfig,
    LinkEmulationConfig,
    ModelConfig,
    PoolConfig,
)
from twinfer.core.errors import ConfigError
from twinfer.core.ids import ModelId

VIRTUAL_CHUNK_KIB = 16 * 1024
"""A chunk of virtual KV costs here what any costs, and crosses a link that is faster than this machine's memory."""
VIRTUAL_IN_FLIGHT_MIB = 256
PROMPT_STEP_TOKENS = 8192
"""A step of a device that computes prompts as fast as these holds that many positions."""
SIMULATED_BLOCK_TOKENS = 512
"""As the prefixes of Mooncake's traces are cut."""
SIMULATED_CONTEXT_TOKENS = 131_072


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is emulated besides two devices.

    Attributes:
        kv: whether KV has bytes of its own, or stands for those of the model's shape.
        link: of the catalogue; empty takes the prefill device's EFA for virtual KV, and none for real.
        time_scale: stretches the times of devices and link alike.
    """

    kv: Literal["real", "virtual"] = "real"
    link: str = ""
    time_scale: float = 1.0


def emulated_pair(prefill: str, decode: str, model_shape: str, surroundings: Surroundings = Surroundings()) -> Config:
    """A model of that shape with prefill on one device of the catalogue and decode on another, none of which is here.

    Raises:
        ConfigError: no such shape, or no link where one is needed.
    """
    from twinfer.devices.model_config import load_shape

    name, virtual = load_shape(model_shape).name, surroundings.kv == "virtual"
    link = surroundings.link or (_efa_of(prefill) if virtual else "")
    model = ModelConfig(id=f"emulated.{name.lower()}", aliases=(name,), name=name[:20], provider="Twinfer")
    pools = (
        PoolConfig(
            name=role.value,
            role=role,
            engine="emulated",
            max_step_tokens=PROMPT_STEP_TOKENS,
            emulation=EmulationConfig(
                num_layers=1,
                num_kv_heads=1,
                head_dim=4,
                device=device,
                model_shape=model_shape,
                kv=surroundings.kv,
                time_scale=surroundings.time_scale,
            ),
        )
        for role, device in ((Role.PREFILL, prefill), (Role.DECODE, decode))
    )
    emulation = LinkEmulationConfig(link, time_scale=surroundings.time_scale)
    if not virtual:
        return Config(model=(model,), pool=tuple(pools), link=LinkConfig(emulation=emulation))
    return Config(
        model=(model,),
        pool=tuple(pools),
        link=LinkConfig(emulation=emulation, max_in_flight_mib=VIRTUAL_IN_FLIGHT_MIB),
        handoff=HandoffConfig(chunk_kib=VIRTUAL_CHUNK_KIB),
    )


def _efa_of(device: str) -> str:
    """The link that the catalogue has for a device.

    Raises:
        ConfigError: there is none.
    """
    from twinfer.devices.catalogue import Catalogue

    name = f"efa-{device.lower()}"
    if all(entry.name != name for entry in Catalogue().entries):
        raise ConfigError(
            f"which link carries KV away from {device} is not known: name one of `twinfer devices`, --link"
        )
    return name


def simulated_pair(prefill: str, decode: str, model_shape: str, surroundings: Surroundings = Surroundings()) -> Config:
    """The same for the simulator, which holds no bytes: long contexts, and KV blocks as traces have them.

    Raises:
        ConfigError: no such shape.
    """
    config = emulated_pair(prefill, decode, model_shape, surroundings)
    pools = tuple(
        msgspec.structs.replace(
            pool,
            block_tokens=SIMULATED_BLOCK_TOKENS,
            emulation=msgspec.structs.replace(pool.emulation, max_context_tokens=SIMULATED_CONTEXT_TOKENS),
        )
        for pool in config.pool
    )
    return msgspec.structs.replace(config, pool=pools)


def emulated_devices(config: Config, cache_dir: Path) -> Iterator[str]:
    """One sentence for each pool and link that is emulated: which one, and how far its times can be trusted.

    Raises:
        ConfigError: no such device or shape, or the model does not fit.
    """
    from twinfer.devices.catalogue import CATALOGUE, Catalogue, measured_directory
    from twinfer.devices.profile import worst_quality
    from twinfer.engine.step_times import device_times

    for pool in config.pool:
        if pool.engine == "emulated" and pool.emulation.device:
            times = device_times(pool.emulation, cache_dir)
            kv = ", its KV virtual" if pool.emulation.kv == "virtual" else ""
            yield f"{pool.name} emulates {times}{kv}: computed times, of quality {worst_quality(times.profile).value}"
    if link := config.link.emulation.device:
        profile = Catalogue((CATALOGUE, measured_directory(cache_dir))).link(link)
        yield f"KV travels as over {link}, {profile.title}: computed times, of quality {worst_quality(profile).value}"


def locate_models(config: Config) -> dict[ModelId, str]:
    """Where each model lies; downloads what has to be downloaded, before anything is started."""
    from twinfer.model.checkpoint import locate

    return {ModelId(model.id): str(locate(model.source).resolve()) for model in config.model}


def settle_emulation(config: Config, directories: dict[ModelId, str]) -> Config:
    """The same configuration, with ids in place of text in every emulated pool."""
    if all(pool.engine != "emulated" for pool in config.pool):
        return config
    pools = tuple(
        _settled(pool, model_of(config, pool), Path(directories[ModelId(model_of(config, pool).id)]))
        if pool.engine == "emulated"
        else pool
        for pool in config.pool
    )
    return msgspec.structs.replace(config, pool=pools)


def _settled(pool: PoolConfig, model: ModelConfig, directory: Path) -> PoolConfig:
    from twinfer.gateway.loading import load_model

    served, emulation = load_model(model, directory), pool.emulation
    script_ids = emulation.script_ids
    if emulation.script and not script_ids:
        script_ids = (
            *served.tokenizer.encode(emulation.script, add_special_tokens=False),
            *sorted(served.eos_token_ids)[:1],
        )
    settled = msgspec.structs.replace(
        emulation, vocab_size=emulation.vocab_size or served.vocab_size, script_ids=script_ids, script=""
    )
    return msgspec.structs.replace(pool, emulation=settled)
