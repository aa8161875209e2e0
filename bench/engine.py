"""The native engine next to those that one would use instead, on this machine and in this run.

    make bench-setup
    python tools/make_checkpoint.py qwen2.5-0.5b /tmp/half-a-billion
    python -m bench.engine /tmp/half-a-billion
    python -m bench.engine /tmp/half-a-billion --threads 1 --precisions bf16 --only twinfer llama.cpp
    python tools/make_checkpoint.py llama-3.1-8b /tmp/eight-billion
    python -m bench.engine /tmp/eight-billion --device cuda

The machine's limits come first: how fast its cores read memory together, and multiply matrices in bf16; on a GPU, which
has not been measured yet, how fast it copies memory, of which half is reading, stands for the former. Then every
engine runs in a process of its own, one after the other, `--rounds` times over: the prefill of one prompt of 512
tokens, and 32 steps of decoding for 1, 4 and 16 sequences with 64 tokens of context. Weights are random, so no engine
speculates and no cache of prefixes helps. What is printed are medians. A decode step reads all weights once: its limit
is the speed of reading divided by their size, which is that of the matrices without scales. A token of a prompt takes
two operations for each weight but those of the output projection.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from twinfer.model.kernels.library import find_kernels

ROOT = Path(__file__).parents[1]
BITS = {"bf16": 16, "int8": 8, "int4": 4}
READ_BYTES = 1 << 30
MULTIPLY_SIZE = 2048
GPU_MULTIPLY_SIZE = 8192
Cell = tuple[str, int]
"""Phase and batch."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A program of ``bench.engines`` with one precision of weights."""

    name: str
    program: str
    environment: str
    precision: str = "bf16"
    on_gpus: bool = False

    @property
    def label(self) -> str:
        """In the table."""
        return f"{self.name} {self.precision}"


ENGINES = (
    *(Engine("twinfer", "twinfer_engine", "", precision, precision == "bf16") for precision in BITS),
    Engine("vllm", "vllm_engine", "vllm"),
    *(Engine("llama.cpp", "llama_engine", "llama", precision) for precision in BITS),
    Engine("transformers", "transformers_engine", "", on_gpus=True),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the machine can do: bytes read (on a GPU read or written) and bf16 operations, each per second."""

    read: float
    operations: float

    @classmethod
    def of_gpu(cls, device: str) -> "Limits":
        """Medians of five."""
        source = torch.ones(READ_BYTES, dtype=torch.int8, device=device)
        target = torch.empty_like(source)
        matrix = torch.ones(GPU_MULTIPLY_SIZE, GPU_MULTIPLY_SIZE, dtype=torch.bfloat16, device=device)

        def finish() -> None:
            torch.cuda.synchronize(device)

        copy, multiply = _seconds(lambda: target.copy_(source), finish), _seconds(lambda: matrix @ matrix, finish)
        return cls(2 * READ_BYTES / copy, 2 * GPU_MULTIPLY_SIZE**3 / multiply)

    @classmethod
    def of_cores(cls, threads: int) -> "Limits":
        """Medians of five."""
        torch.set_num_threads(threads)
        kernels = find_kernels(threads)
        data = torch.from_numpy(np.ones(READ_BYTES, np.int8))  # numpy asks for huge pages
        matrix = torch.ones(MULTIPLY_SIZE, MULTIPLY_SIZE).bfloat16()
        read = _seconds(lambda: kernels.read(data) if kernels else data.view(torch.int64).sum())
        return cls(READ_BYTES / read, 2 * MULTIPLY_SIZE**3 / _seconds(lambda: matrix @ matrix))


def _seconds(work: Callable[[], object], finish: Callable[[], None] = lambda: None) -> float:
    times = []
    for _ in range(6):
        start = time.perf_counter()
        work()
        finish()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def run(engine: Engine, peers: Path, arguments: Sequence[str], cores: set[int]) -> dict[Cell, list[float]] | str:
    """Tokens per second of every repetition, or why there are none."""
    python = peers / engine.environment / "bin" / "python" if engine.environment else Path(sys.executable)
    if not python.exists() or (engine.environment and not (peers / engine.environment / ".ready").exists()):
        return "not installed; see make bench-setup"
    command = [str(python), "-m", f"bench.engines.{engine.program}", *arguments, "--precision", engine.precision]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"ended with {done.returncode}"
    rates: dict[Cell, list[float]] = defaultdict(list)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found = json.loads(line)
            rates[found["phase"], found["batch"]] += [found["tokens"] / seconds for seconds in found["seconds"]]
    return rates


@dataclass(frozen=True, slots=True)
class Size:
    """Elements of a model's matrices: all that a step reads, and those that every position is multiplied with."""

    read: int
    multiplied: int


def size_of(checkpoint: Path) -> Size:
    """As the files of a checkpoint say."""
    with (checkpoint / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    shapes = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    elements = {name: shape[0] * shape[1] for name, shape in shapes.items() if len(shape) == 2}
    embedding = elements.pop("model.embed_tokens.weight")
    head = elements.pop("lm_head.weight", embedding)
    return Size(sum(elements.values()) + head, sum(elements.values()))


def table(
    rates: dict[Engine, dict[Cell, list[float]] | str], batches: Sequence[int], limits: Limits, size: Size
) -> Table:
    """Tokens per second; of Twinfer's rows also the share of what the machine could do."""
    shown = Table("engine", "prefill 512", *(f"decode x{batch}" for batch in batches), "of reading", "of bf16 peak")
    for engine, found in rates.items():
        if isinstance(found, str):
            shown.add_row(engine.label, found, *[""] * (len(batches) + 2))
            continue
        medians = {cell: statistics.median(values) for cell, values in found.items()}
        alone, prefill = medians["decode", batches[0]], medians["prefill", 1]
        read = alone / batches[0] * size.read * BITS[engine.precision] / 8 / limits.read
        multiplied = prefill * 2 * size.multiplied / limits.operations
        cells = [f"{medians['decode', batch]:.1f}" for batch in batches]
        shown.add_row(engine.label, f"{prefill:.0f}", *cells, f"{read:.0%}", f"{multiplied:.0%}")
    return shown


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="directory in Hugging Face format, Qwen2's shape in bf16")
    parser.add_argument("--device", default="cpu", help="a CUDA device takes the place of the cores (default: cpu)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="and cores (default: all)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="sequences at once")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement in a round (default: 5)")
    parser.add_argument("--rounds", type=int, default=1, help="in which every engine has its turn (default: 1)")
    parser.add_argument("--precisions", nargs="+", choices=BITS, default=list(BITS), help="of weights")
    parser.add_argument("--only", nargs="+", metavar="ENGINE", help="names of engines (default: all)")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers", help="where make bench-setup put them")
    asked = parser.parse_args()
    cores = set(sorted(os.sched_getaffinity(0))[: asked.threads])
    console = Console()
    os.sched_setaffinity(0, cores)
    is_gpu = asked.device != "cpu"
    if is_gpu and not torch.cuda.is_available():
        parser.error(f"--device {asked.device}: torch finds no CUDA device on this machine; leave it out for the cores")
    limits = Limits.of_gpu(asked.device) if is_gpu else Limits.of_cores(asked.threads)
    what, done = (asked.device, "copied") if is_gpu else (f"{asked.threads} threads", "read")
    console.print(f"{what}: {limits.read / 1e9:.1f} GB/s {done}, {limits.operations / 1e12:.2f} TFLOP/s in bf16")
    arguments = [str(asked.checkpoint.resolve()), "--threads", str(asked.threads), "--repeats", str(asked.repeats)]
    arguments += ["--device", asked.device, "--batches", *map(str, asked.batches)]
    wanted = [engine for engine in ENGINES if engine.precision in asked.precisions and (engine.on_gpus or not is_gpu)]
    wanted = [engine for engine in wanted if asked.only is None or engine.name in asked.only]
    rates: dict[Engine, dict[Cell, list[float]] | str] = {}
    for number in range(asked.rounds):
        for engine in wanted:
            with console.status(f"round {number + 1} of {asked.rounds}: {engine.label}"):
                found, before = run(engine, asked.peers, arguments, cores), rates.get(engine, {})
            if not isinstance(found, str) and not isinstance(before, str):
                found = {cell: [*before.get(cell, ()), *values] for cell, values in found.items()}
            rates[engine] = found
    console.print(table(rates, asked.batches, limits, size_of(asked.checkpoint)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
