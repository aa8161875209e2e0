"""Settles what an emulated pool leaves to the model's tokenizer: vocabulary and scripted answers as token ids."""

from pathlib import Path

import msgspec

from twinfer.cluster.plan import model_of
from twinfer.core.config import Config, ModelConfig, PoolConfig
from twinfer.core.ids import ModelId


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
