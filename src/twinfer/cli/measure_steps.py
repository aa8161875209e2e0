"""Times steps of a model in the native engine, and fits a device to them."""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from twinfer.core.capabilities import Role
from twinfer.core.clock import Clock
from twinfer.core.config import ModelConfig, PoolConfig, WeightFormat
from twinfer.core.errors import ConfigError
from twinfer.devices.fit_steps import fit_steps, step_errors
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement
from twinfer.devices.profile import RooflineProfile
from twinfer.engine.step_probe import probe
from twinfer.kv.memory import PoolMemory
from twinfer.model.checkpoint import locate
from twinfer.simulator.native_pool import precision_of


@dataclass(frozen=True, slots=True)
class StepsOf:
    """A model whose steps are timed.

    Attributes:
        source: ``demo``, a directory, or a Hugging Face id.
        cache_dir: for its prepared weights.
    """

    source: str
    weights: WeightFormat
    cache_dir: Path


def fitted_to_steps(device: RooflineProfile, steps: StepsOf, clock: Clock, origin: str) -> tuple[RooflineProfile, str]:
    """The device fitted to a model's steps, and a sentence on how well it explains them.

    Raises:
        ConfigError: there is no torch, or the simulator does not know such weights.
        CheckpointError: there is no such model.
    """
    model = ModelConfig(id="measured", source=steps.source)
    pool = PoolConfig(name="measured", role=Role.BOTH, weights=steps.weights)
    shape = load_shape(str(locate(steps.source)))
    placement = Placement(precision=precision_of(pool, shape))
    try:
        from twinfer.engine.native import native_capabilities, native_model, native_runner
        from twinfer.model.probe import use_threads
    except ImportError as error:
        raise ConfigError(
            f"timing steps needs {error.name}, which is not installed: pip install 'twinfer[native]'"
        ) from error
    use_threads(len(os.sched_getaffinity(0)))
    served = native_model(model, pool, steps.cache_dir)
    offered = native_capabilities(served, model, pool)
    memory = PoolMemory(offered.num_blocks, offered.layout.block_bytes)
    runner = native_runner(served, offered, pool.device, memory.view, steps.cache_dir)
    samples = probe(runner, offered.layout, offered.num_blocks, clock)
    source = f"{origin}; fitted to {len(samples)} timed steps of {shape.name} in {served.weights}"
    doubts = (f"Fitted to steps of {shape.name} in {served.weights}: other models may reach other shares.",)
    found = fit_steps(msgspec.structs.replace(device, doubts=doubts), shape, placement, samples, source)
    median, largest = step_errors(found, shape, placement, samples)
    return found, (
        f"Fitted to {len(samples)} timed steps of {shape.name}: half of the computed times are within {median:.0%}, "
        f"all within {largest:.0%}."
    )
