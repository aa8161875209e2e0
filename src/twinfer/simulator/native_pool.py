"""Native pools as what the simulator knows: a device that was measured, and the shape of the checkpoint they serve."""

import msgspec

from twinfer.core.config import EmulationConfig, ModelConfig, PoolConfig, WeightFormat
from twinfer.core.errors import ConfigError
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.model_config import load_shape
from twinfer.devices.shape import ModelShape, Precision
from twinfer.model.checkpoint import locate

MEASURED = "this"
_PRECISION: dict[WeightFormat, Precision] = {"bf16": "bf16", "fp16": "bf16", "int8": "fp8", "int4": "mxfp4"}
"""Formats as wide as what the catalogue's devices read; ``checkpoint`` is the published one."""


def as_emulated(model: ModelConfig, pool: PoolConfig, catalogue: Catalogue) -> PoolConfig:
    """The pool that takes the times that a native one would: of ``emulation.device``, or of this machine.

    Raises:
        ConfigError: this machine was not measured, there is no such checkpoint, or its weights are wider than any
            device of the catalogue reads them.
        CheckpointError: there is no such model.
    """
    device = pool.emulation.device or MEASURED
    if device == MEASURED and all(entry.name != MEASURED for entry in catalogue.entries):
        raise ConfigError(
            f"pool {pool.name}: how fast this machine computes is not known; "
            "run `twinfer devices measure --model DIR --write`, or name a device of the catalogue in emulation.device"
        )
    directory = str(locate(model.source))
    shape = load_shape(directory)
    emulation = EmulationConfig(
        num_layers=shape.num_layers,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab_size,
        device=device,
        devices=pool.emulation.devices,
        model_shape=directory,
        precision=precision_of(pool, shape),
        time_scale=pool.emulation.time_scale,
    )
    kv_dtype = "bf16" if pool.kv_dtype == "weights" else pool.kv_dtype
    return msgspec.structs.replace(pool, engine="emulated", kv_dtype=kv_dtype, emulation=emulation)


def precision_of(pool: PoolConfig, shape: ModelShape) -> Precision:
    """How wide the pool's weights are, in the catalogue's words.

    Raises:
        ConfigError: as no device of the catalogue reads them.
    """
    precision = shape.native if pool.weights == "checkpoint" else _PRECISION.get(pool.weights)
    if precision is None:
        raise ConfigError(
            f"pool {pool.name}: times of {pool.weights} weights are not known; set weights to one of "
            f"checkpoint, {', '.join(_PRECISION)}"
        )
    return precision
