"""Emulated pools: made for two devices of the catalogue, and settled where they leave things to the tokenizer."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from twinfer.cluster.plan import model_of
from twinfer.core.capabilities import Role
from twinfer.core.config import Config, EmulationConfig, ModelConfig, PoolConfig
from twinfer.core.ids import ModelId

PROMPT_STEP_TOKENS = 8192
"""A step of a device that computes prompts as fast as these holds that many positions."""
SIMULATED_BLOCK_TOKENS = 512
"""As the prefixes of Mooncake's traces are cut."""
SIMULATED_CONTEXT_TOKENS = 131_072


def emulated_pair(prefill: str, decode: str, model_shape: str) -> Config:
    """A model of that shape with prefill on one device of the catalogue and decode on another, none of which is here.

    Raises:
        ConfigError: no such shape.
    """
    from twinfer.devices.model_config import load_shape

    name = load_shape(model_shape).name
    model = ModelConfig(id=f"emulated.{name.lower()}", aliases=(name,), name=name[:20], provider="Twinfer")
    pools = (
        PoolConfig(
            name=role.value,
            role=role,
            engine="emulated",
            max_step_tokens=PROMPT_STEP_TOKENS,
            emulation=EmulationConfig(num_layers=1, num_kv_heads=1, head_dim=4, device=device, model_shape=model_shape),
        )
        for role, device in ((Role.PREFILL, prefill), (Role.DECODE, decode))
    )
    return Config(model=(model,), pool=tuple(pools))


def simulated_pair(prefill: str, decode: str, model_shape: str) -> Config:
    """The same for the simulator, which holds no bytes: long contexts, and KV blocks as traces have them.

    Raises:
        ConfigError: no such shape.
    """
    config = emulated_pair(prefill, decode, model_shape)
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
    """One sentence for each pool that stands for a device: which one, and how far its times can be trusted.

    Raises:
        ConfigError: no such device or shape, or the model does not fit.
    """
    from twinfer.devices.profile import worst_quality
    from twinfer.engine.step_times import device_times

    for pool in config.pool:
        if pool.engine == "emulated" and pool.emulation.device:
            times = device_times(pool.emulation, cache_dir)
            yield f"{pool.name} emulates {times}: computed times, of quality {worst_quality(times.profile).value}"


def locate_models(config: Config) -> dict[ModelId, str]:
    """Where each model lies; downloads what has to be downloaded, before anything is started."""
    from twinfer.model.checkpoint import locate

    return {ModelId(model.id): str(locate(model.source)) for model in config.model}


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
