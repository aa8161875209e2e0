"""The native engine: our decoder in torch, on whatever device torch knows.

On a CPU the runner's pool *is* the memory that KV leaves from and arrives in. On any other device that memory is the
host's staging area: exported blocks are copied out when they are final, ingested ones in when they are committed.
No GPU has run this yet; ``docs/gpu.md`` says what was proven without one.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from twinfer.core.capabilities import Capabilities
from twinfer.core.config import ModelConfig, PoolConfig
from twinfer.core.errors import ConfigError
from twinfer.core.ids import ModelId
from twinfer.core.layout import KVLayout
from twinfer.core.step import StepPlan, StepResult
from twinfer.engine.assemble import num_blocks
from twinfer.grammar.vocabulary import has_vocabulary
from twinfer.model.load import load_runner
from twinfer.model.paged_kv import PagedKV, pool_tensor
from twinfer.model.recorder import Recorder, recorder_for
from twinfer.model.runner import ModelRunner
from twinfer.model.served import ServedModel, describe


def native_model(model: ModelConfig, pool: PoolConfig, cache_dir: Path) -> ServedModel:
    """The checkpoint of a pool's model, checked, with the precision it is served in.

    Raises:
        CheckpointError: it cannot be found or used.
        ConfigError: it cannot be served as asked.
    """
    return describe(model.source, cache_dir, pool.weights, pool.kv_dtype, model.max_context_tokens)


def native_capabilities(served: ServedModel, model: ModelConfig, pool: PoolConfig) -> Capabilities:
    """What a native worker of this pool offers; known before any weight is loaded."""
    layout = served.layout(pool.block_tokens)
    count = num_blocks(pool, layout)
    return Capabilities(
        model=ModelId(model.id),
        fingerprint=served.fingerprint,
        layout=layout,
        provenance=served.provenance,
        num_blocks=count,
        max_context_tokens=min(served.max_context_tokens, count * pool.block_tokens),
        vocab_size=served.spec.vocab_size,
        sight_tokens=served.spec.sight,
        grammars=has_vocabulary(served.checkpoint.directory),
    )


def native_runner(
    served: ServedModel, capabilities: Capabilities, device: str, memory: memoryview, cache_dir: Path
) -> "NativeRunner":
    """Load the weights and warm up.

    Raises:
        ConfigError: torch cannot use the device, or it has too little memory.
        CheckpointError: the prepared weights cannot be written.
    """
    where = _usable(device)
    host = pool_tensor(memory, capabilities.layout, capabilities.num_blocks)
    try:
        kv = PagedKV(host, capabilities.layout) if where.type == "cpu" else staged(host, capabilities.layout, where)
        return ready_runner(served, kv, host, cache_dir, recorder_for(where))
    except torch.OutOfMemoryError as error:
        size = memory.nbytes // 2**20
        raise ConfigError(f"device {device!r} cannot hold the weights and {size} MiB of KV; lower kv_mib") from error


def ready_runner(
    served: ServedModel, kv: PagedKV, host: Tensor, cache_dir: Path, recorder: Recorder | None
) -> "NativeRunner":
    """Load the weights to the device of ``kv`` and warm up; ``host`` is its pool, or where that is staged."""
    runner = load_runner(served, kv, cache_dir, recorder)
    runner.warm_up()
    return NativeRunner(runner, kv.pool, host)


def staged(host: Tensor, layout: KVLayout, device: torch.device) -> PagedKV:
    """A pool on a device, with one block more than its staging area on the host: scratch, which nobody is dealt."""
    pool = torch.zeros((len(host) + 1, *host.shape[1:]), dtype=host.dtype, device=device)
    return PagedKV(pool, layout, scratch=len(host))


def _usable(device: str) -> torch.device:
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"device {device!r} cannot be used: {reason}; 'twinfer doctor' lists those that can, and \"cpu\" always can"
        ) from error


class NativeRunner:
    """A model runner, and the way of its KV blocks between device and host."""

    def __init__(self, runner: ModelRunner, pool: Tensor, host: Tensor) -> None:
        self._runner = runner
        self._pool = pool
        self._host = host
        self._staged = pool is not host

    def execute(self, plan: StepPlan) -> StepResult:
        """Compute one step."""
        return self._runner.execute(plan)

    def to_host(self, blocks: Sequence[int]) -> None:
        """Make final blocks readable in host memory."""
        if self._staged and blocks:
            index = list(blocks)
            self._host[index] = self._pool[index].to(self._host.device)

    def from_host(self, blocks: Sequence[int]) -> None:
        """Take over blocks that arrived in host memory."""
        if self._staged and blocks:
            index = list(blocks)
            self._pool[index] = self._host[index].to(self._pool.device)
