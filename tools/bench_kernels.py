"""Measure products and whole steps against the speed at which this machine reads memory.

    python tools/make_checkpoint.py qwen2.5-0.5b /tmp/half-a-billion
    python tools/bench_kernels.py /tmp/half-a-billion
    python tools/bench_kernels.py /tmp/half-a-billion --threads 1 --formats bf16 int8

1. A plain read loop over 1 GiB, which is the bar for everything below.
2. Products of each format with as many rows, over matrices that together do not fit a cache.
3. Decode steps at these batches, 100 tokens into each sequence: tokens per second, and how much of the bar the weights
   that a step reads make of its time.
4. A prompt in steps of 512 positions.

Rounds of all of it are interleaved and medians are shown, since other work on the machine is.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from twinfer.core.ids import ModelId, RequestId, TenantId
from twinfer.core.request import GenerationRequest, Sampling, Stopping
from twinfer.core.step import Slice, StepPlan
from twinfer.model.kernels.library import Kernels, StoredMatrix, find_kernels, stored_matrix
from twinfer.model.load import load_runner
from twinfer.model.packing import PACKINGS
from twinfer.model.paged_kv import PagedKV, pool_tensor
from twinfer.model.runner import ModelRunner
from twinfer.model.served import describe
from twinfer.model.spec import StoredFormat
from twinfer.model.tensor_file import read_header

BATCHES = (1, 4, 16)
PROMPT_TOKENS = 512
CONTEXT = 100
BLOCK_TOKENS = 16
BLOCKS_EACH = PROMPT_TOKENS // BLOCK_TOKENS + 1
INPUTS, OUTPUTS = 4864, 30_000
READ_BYTES = 1 << 30
GREEDY = Sampling(temperature=0.0)

Times = defaultdict[str, list[float]]


def timed(times: Times, name: str, work: Callable[[], object]) -> None:
    """Add one run's seconds."""
    start = time.perf_counter()
    work()
    times[name].append(time.perf_counter() - start)


def matrix_of(weights: StoredFormat) -> tuple[StoredMatrix, int, tuple[Tensor, ...]]:
    """A random matrix, its bytes, and what keeps it alive."""
    rows = torch.randn(OUTPUTS, INPUTS, dtype=torch.bfloat16)
    if weights not in PACKINGS:
        return stored_matrix(rows, None, rows.shape, 16), rows.nbytes, (rows,)
    packing = PACKINGS[weights]
    packed, scales = packing.pack(rows)
    size = packed.nbytes + scales.nbytes
    return stored_matrix(packed, scales, rows.shape, packing.bits), size, (packed, scales)


def bench_products(kernels: Kernels, formats: Sequence[StoredFormat], rounds: int, bar: Tensor) -> None:
    """Print GB/s of each format at each number of rows, and its share of the read loop's."""
    times: Times = defaultdict(list)
    matrices = {weights: matrix_of(weights) for weights in formats}
    for _ in range(rounds):
        timed(times, "read", lambda: kernels.read(bar))
        for weights, (matrix, _, _) in matrices.items():
            for count in BATCHES:
                rows = torch.randn(count, INPUTS, dtype=torch.bfloat16)
                timed(times, f"{weights} {count}", lambda m=matrix, r=rows: kernels.product(m, r))  # type: ignore[misc]
    speed = bar.nbytes / statistics.median(times["read"]) / 1e9
    print(f"read loop: {speed:.1f} GB/s")
    for weights, (_, size, _) in matrices.items():
        for count in BATCHES:
            found = size / statistics.median(times[f"{weights} {count}"]) / 1e9
            print(f"product, {weights}, {count} rows: {found:.1f} GB/s, {found / speed:.0%} of the read loop")


def runner_of(source: str, weights: StoredFormat, cache_dir: Path) -> tuple[ModelRunner, int]:
    """A runner with room for the largest batch, and the bytes of weights that a decode step reads."""
    served = describe(source, cache_dir, weights, "fp32" if weights == "fp32" else "bf16")
    layout = served.layout(BLOCK_TOKENS)
    count = BLOCKS_EACH * max(BATCHES)
    pool = pool_tensor(memoryview(bytearray(count * layout.block_bytes)), layout, count)
    runner = load_runner(served, PagedKV(pool, layout), cache_dir)
    path = next((cache_dir / "weights").glob(f"{served.fingerprint.weights}-{weights}-*.safetensors"))
    tensors = read_header(path).tensors
    is_lookup = "head" in tensors
    read = sum(each.end - each.start for name, each in tensors.items() if not (is_lookup and name == "embedding"))
    return runner, read


def slice_of(index: int, num_tokens: int, start: int) -> Slice:
    """Positions of one of the sequences."""
    name = RequestId(str(index))
    request = GenerationRequest(name, ModelId(""), TenantId(""), (5,) * (start + num_tokens), Stopping(1), GREEDY)
    blocks = tuple(range(index * BLOCKS_EACH, (index + 1) * BLOCKS_EACH))
    return Slice(request, (7 + index,) * num_tokens, start, blocks, 0, ())


def bench_steps(source: str, kernels: Kernels, formats: Sequence[StoredFormat], rounds: int, bar: Tensor) -> None:
    """Print tokens per second of decode steps and of a prompt."""
    times: Times = defaultdict(list)
    decode = {count: StepPlan(tuple(slice_of(i, 1, CONTEXT) for i in range(count))) for count in BATCHES}
    prompt = StepPlan((slice_of(0, PROMPT_TOKENS, 0),))
    with tempfile.TemporaryDirectory() as folder:
        runners = {weights: runner_of(source, weights, Path(folder)) for weights in formats}
        for runner, _ in runners.values():
            runner.warm_up()
        for _ in range(rounds):
            timed(times, "read", lambda: kernels.read(bar))
            for weights, (runner, _) in runners.items():
                timed(times, f"{weights} prompt", lambda r=runner: r.execute(prompt))  # type: ignore[misc]
                for count, plan in decode.items():
                    runner.execute(plan)
                    timed(times, f"{weights} {count}", lambda r=runner, p=plan: r.execute(p))  # type: ignore[misc]
    seconds_per_byte = statistics.median(times["read"]) / bar.nbytes
    for weights, (_, size) in runners.items():
        for count in BATCHES:
            step = statistics.median(times[f"{weights} {count}"])
            share = size * seconds_per_byte / step
            speed = f"{count / step:.1f} tokens/s, {step * 1e3:.1f} ms"
            print(f"decode, {weights}, batch {count}: {speed}, {share:.0%} reading")
        step = statistics.median(times[f"{weights} prompt"])
        print(f"prefill, {weights}: {PROMPT_TOKENS / step:.0f} tokens/s")


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a directory, or 'demo'")
    parser.add_argument("--formats", nargs="+", choices=["bf16", "int8", "int4"], default=["bf16", "int8", "int4"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--rounds", type=int, default=7, help="runs of everything (default: 7)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kernels = find_kernels(options.threads)
    if kernels is None:
        raise SystemExit("the kernels are not built: see 'twinfer doctor'")
    bar = torch.from_numpy(np.ones(READ_BYTES, np.uint8))  # numpy asks for huge pages
    print(f"{options.threads} threads, {kernels.isa.name}, torch {torch.__version__}")
    bench_products(kernels, options.formats, options.rounds, bar)
    bench_steps(options.model, kernels, options.formats, options.rounds, bar)


if __name__ == "__main__":
    main()
