"""Puts an engine together: capabilities and a runner in, a loop with its pool around them out."""

import threading

from twinfer.core.block_hash import BlockHasher
from twinfer.core.capabilities import Capabilities, Fingerprint
from twinfer.core.clock import Clock
from twinfer.core.config import ModelConfig, PoolConfig
from twinfer.core.errors import ConfigError
from twinfer.core.ids import ModelId
from twinfer.core.layout import KVLayout
from twinfer.engine.emulated import EmulatedRunner
from twinfer.engine.loop import EngineLoop
from twinfer.engine.paged import PagedEngine, Runner
from twinfer.engine.scheduler import Limits
from twinfer.engine.step_times import virtual_layout
from twinfer.kv.block_pool import BlockPool

MIN_BLOCKS = 4
MAX_RUN = 4
"""Decode steps taken as one by an emulated engine: so many tokens may then share an event."""
GUESS_ROWS = 8
"""Few enough for reading the weights to be what a step takes its time for."""
LAST_STRIDE = 128
"""Positions of a prompt that our kernels compute nearly as fast, for each, as those of a whole chunk."""


def num_blocks(pool: PoolConfig, layout: KVLayout) -> int:
    """Blocks that fit into the configured KV memory; of virtual KV without a device, those that it stands for.

    Raises:
        ConfigError: so few that no sequence could run.
    """
    block_bytes = layout.block_bytes if pool.emulation.device else layout.counted_block_bytes
    count = pool.kv_mib * 2**20 // block_bytes
    if count < MIN_BLOCKS:
        raise ConfigError(
            f"pool {pool.name}: kv_mib = {pool.kv_mib} holds only {count} blocks of {block_bytes} bytes; "
            f"set at least {-(-MIN_BLOCKS * block_bytes // 2**20)}"
        )
    return count


def num_host_blocks(pool: PoolConfig, layout: KVLayout) -> int:
    """Blocks of the host tier, which lie after the pool's in a worker's memory."""
    return pool.host_kv_mib * 2**20 // (layout.block_bytes if pool.emulation.device else layout.counted_block_bytes)


def assemble(
    pool: PoolConfig,
    capabilities: Capabilities,
    runner: Runner,
    cluster_key: bytes,
    clock: Clock,
    changed: threading.Event | None = None,
) -> PagedEngine:
    """An engine ready to be stepped; it sets ``changed`` whenever something comes from outside."""
    layout = capabilities.layout
    loop = EngineLoop(
        BlockPool(capabilities.num_blocks, int(capabilities.num_blocks * pool.max_pinned_fraction)),
        BlockHasher(cluster_key, capabilities.fingerprint, capabilities.provenance, layout.block_tokens),
        limits(pool, capabilities),
        capabilities.vocab_size,
    )
    return PagedEngine(loop, runner, capabilities, clock, changed)


def limits(pool: PoolConfig, capabilities: Capabilities) -> Limits:
    """On steps and queues of the pool's workers."""
    guesses = pool.speculation == "lookup" or (pool.speculation == "auto" and pool.engine == "native")
    return Limits(
        pool.max_step_tokens,
        pool.max_running,
        pool.max_waiting,
        capabilities.max_context_tokens,
        capabilities.sight_tokens,
        GUESS_ROWS if guesses else 0,
        LAST_STRIDE if pool.engine == "native" else 0,
        MAX_RUN if pool.engine == "emulated" else 1,
        grammars=capabilities.grammars,
        step_goal_s=pool.step_goal_ms / 1e3,
    )


def emulated_capabilities(model: ModelConfig, pool: PoolConfig, max_kv_tokens: int | None = None) -> Capabilities:
    """What an emulated worker of this pool offers; no more KV than the device that it stands for would hold."""
    emulation, kind = pool.emulation, "emulated"
    dtype = "fp32" if pool.kv_dtype == "weights" else pool.kv_dtype
    if emulation.kv == "virtual":
        layout, kind = virtual_layout(pool), f"virtual {emulation.model_shape}"
    else:
        layout = KVLayout(emulation.num_layers, emulation.num_kv_heads, emulation.head_dim, pool.block_tokens, dtype)
    fingerprint = Fingerprint(
        weights=f"{kind}:{emulation.vocab_size}" + (f":{emulation.seed}" if emulation.seed else ""),
        tokenizer="",
        num_layers=layout.num_layers,
        num_kv_heads=layout.num_kv_heads,
        head_dim=layout.head_dim,
        rope="none",
    )
    count = num_blocks(pool, layout)
    if max_kv_tokens is not None:
        count = max(MIN_BLOCKS, min(count, max_kv_tokens // pool.block_tokens))
    context = min(model.max_context_tokens or emulation.max_context_tokens, count * pool.block_tokens)
    return Capabilities(ModelId(model.id), fingerprint, layout, f"{kind}/{dtype}", count, context, emulation.vocab_size)


def emulated_engine(
    model: ModelConfig, pool: PoolConfig, memory: memoryview, cluster_key: bytes, clock: Clock
) -> PagedEngine:
    """An engine without a model, on ``memory`` of the size that its capabilities say."""
    capabilities = emulated_capabilities(model, pool)
    runner = EmulatedRunner(memory, capabilities.layout, capabilities.vocab_size, pool.emulation, clock)
    return assemble(pool, capabilities, runner, cluster_key, clock, runner.changed)
