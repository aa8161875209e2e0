"""Twinfer's native engine, scheduler and block pool included, without its gateway and handoff."""

import time
from pathlib import Path

import torch

from bench.engines.protocol import CONTEXT_TOKENS, PREFILL_TOKENS, arguments, measure
from twinfer.core.capabilities import Role
from twinfer.core.clock import MonotonicClock
from twinfer.core.config import ModelConfig, PoolConfig, WeightFormat
from twinfer.core.ids import ModelId, RequestId, TenantId
from twinfer.core.request import GenerationRequest, Sampling, Stopping
from twinfer.engine.assemble import assemble
from twinfer.engine.native import native_capabilities, native_model, native_runner
from twinfer.kv.memory import PoolMemory

CACHE = Path.home() / ".cache" / "twinfer"


class TwinferBench:
    """An engine in this process, stepped by hand."""

    def __init__(self, checkpoint: str, device: str, precision: WeightFormat, sequences: int) -> None:
        model = ModelConfig(id="bench.model-v1:0", source=checkpoint)
        step_tokens = max(PREFILL_TOKENS, sequences * CONTEXT_TOKENS)  # all prompts in one step, as elsewhere
        pool = PoolConfig(
            "bench", Role.BOTH, weights=precision, kv_mib=512, max_step_tokens=step_tokens, speculation="off"
        )
        served = native_model(model, pool, CACHE)
        capabilities = native_capabilities(served, model, pool)
        memory = PoolMemory(capabilities.num_blocks, capabilities.layout.block_bytes)
        runner = native_runner(served, capabilities, device, memory.view, CACHE)
        self._engine = assemble(pool, capabilities, runner, b"bench", MonotonicClock())
        self._num_requests = 0

    def prefill(self, prompt: list[int]) -> float:
        """See ``Bench``."""
        self._submit(prompt, 1)
        start = time.perf_counter()
        self._drain()
        return time.perf_counter() - start

    def decode(self, prompts: list[list[int]], steps: int) -> float:
        """See ``Bench``."""
        for prompt in prompts:
            self._submit(prompt, steps + 1)
        outcome = self._engine.step()
        assert outcome is not None
        assert len(outcome.tokens) == len(prompts)
        start = time.perf_counter()
        self._drain()
        return time.perf_counter() - start

    def _submit(self, prompt: list[int], max_tokens: int) -> None:
        self._num_requests += 1
        self._engine.submit(
            GenerationRequest(
                RequestId(str(self._num_requests)),
                ModelId("bench"),
                TenantId("bench"),
                tuple(prompt),
                Stopping(max_tokens),
                Sampling(temperature=0.0),
            )
        )

    def _drain(self) -> None:
        while self._engine.step() is not None:
            pass


if __name__ == "__main__":
    asked = arguments(__doc__)
    torch.set_num_threads(asked.threads)
    bench = TwinferBench(asked.checkpoint, asked.device, asked.precision, max(asked.batches))
    measure(bench, asked.repeats, asked.batches)
