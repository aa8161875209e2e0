"""Builds a worker's engine and KV memory from its spec; torch is imported only where an engine needs it."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from twinfer.core.capabilities import Capabilities
from twinfer.core.clock import Clock
from twinfer.core.errors import ConfigError
from twinfer.core.process import WorkerSpec
from twinfer.engine.assemble import assemble, emulated_capabilities, num_host_blocks
from twinfer.engine.emulated import EmulatedRunner
from twinfer.engine.paged import PagedEngine, Runner
from twinfer.engine.step_seed import step_fit
from twinfer.engine.step_times import device_times
from twinfer.grammar.masks import GrammarMasks
from twinfer.grammar.vocabulary import load_vocabulary
from twinfer.kv.memory import PoolMemory
from twinfer.model.checkpoint import locate

Progress = Callable[[str], None]
"""Told what is being done, in a few words."""


def build_engine(
    spec: WorkerSpec, cluster_key: bytes, clock: Clock, progress: Progress
) -> tuple[PagedEngine, PoolMemory]:
    """The engine of a worker, ready to be stepped, on its own KV memory.

    Raises:
        ConfigError: the configuration cannot be used here.
        CheckpointError: the model cannot be loaded.
    """
    capabilities, memory, runner = (_native if spec.pool.engine == "native" else _emulated)(spec, clock, progress)
    changed = runner.changed if isinstance(runner, EmulatedRunner) else None
    engine = assemble(spec.pool, capabilities, runner, cluster_key, clock, changed)
    engine.learn_costs(step_fit(spec.pool, Path(spec.cache_dir)))
    engine.use_host_tier(memory.view, spec.pool.max_host_fraction)
    engine.exports.max_parked_blocks = int(capabilities.num_blocks * spec.handoff.max_parked_fraction)
    return engine, memory


def _emulated(spec: WorkerSpec, clock: Clock, progress: Progress) -> tuple[Capabilities, PoolMemory, Runner]:
    progress("emulating")
    emulation = spec.pool.emulation
    times = device_times(emulation, Path(spec.cache_dir)) if emulation.device else None
    max_kv_tokens = None if times is None else times.kv_tokens(emulation.max_context_tokens)
    vocabulary = load_vocabulary(locate(spec.model.source), emulation.vocab_size)
    capabilities = msgspec.structs.replace(
        emulated_capabilities(spec.model, spec.pool, max_kv_tokens), grammars=vocabulary is not None
    )
    memory, pool = _memory(spec, capabilities)
    masks = None if vocabulary is None else GrammarMasks(vocabulary)
    runner = EmulatedRunner(pool, capabilities.layout, capabilities.vocab_size, emulation, clock, times, masks)
    return capabilities, memory, runner


def _native(spec: WorkerSpec, clock: Clock, progress: Progress) -> tuple[Capabilities, PoolMemory, Runner]:
    del clock
    progress("importing torch")
    try:
        import torch

        from twinfer.engine.native import native_capabilities, native_model, native_runner
    except ImportError as error:
        raise ConfigError(
            f"the native engine needs {error.name}, which is not installed: pip install 'twinfer[native]'"
        ) from error
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0))))
    progress("reading the checkpoint")
    cache_dir = Path(spec.cache_dir)
    served = native_model(spec.model, spec.pool, cache_dir)
    capabilities = native_capabilities(served, spec.model, spec.pool)
    memory, pool = _memory(spec, capabilities)
    progress("loading weights")
    return capabilities, memory, native_runner(served, capabilities, spec.pool.device, pool, cache_dir)


def _memory(spec: WorkerSpec, capabilities: Capabilities) -> tuple[PoolMemory, memoryview]:
    """Memory for the pool and the host tier after it, and the pool's part of it."""
    layout, num_blocks = capabilities.layout, capabilities.num_blocks
    memory = PoolMemory(num_blocks + num_host_blocks(spec.pool, layout), layout.block_bytes)
    return memory, memory.view[: num_blocks * layout.block_bytes]
