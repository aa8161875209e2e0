"""What holding answers to a schema costs a decode step, beside steps whose answers are free.

    python -m bench.masks
    python tools/make_checkpoint.py qwen2.5-0.5b /tmp/half-a-billion
    python -m bench.masks /tmp/half-a-billion --weights int8

Both take turns on one engine, a round of steps each. Steps in which all sequences draw are counted, in the CPU time of
the process, which neighbours on the machine change less than the clock's. Answers are JSON texts without end. A
checkpoint without a tokenizer is given the demo model's tokens and pairs of them, until its vocabulary is full: long
tokens, which are what makes masks slow.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from twinfer.core.capabilities import Role
from twinfer.core.clock import MonotonicClock
from twinfer.core.config import ModelConfig, PoolConfig, WeightFormat
from twinfer.core.ids import ModelId, RequestId, TenantId
from twinfer.core.request import GenerationRequest, Grammar, Sampling, Stopping
from twinfer.engine.assemble import assemble
from twinfer.engine.native import native_capabilities, native_model, native_runner
from twinfer.engine.paged import PagedEngine
from twinfer.kv.memory import PoolMemory
from twinfer.model.checkpoint import DEMO, locate

CACHE = Path.home() / ".cache" / "twinfer"
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "kind": {"enum": ["person", "place", "thing"]},
        "seen": {"type": "string", "format": "date-time"},
    },
    "required": ["name", "age", "tags", "kind", "seen"],
    "additionalProperties": False,
}
ENDLESS = f'%llguidance {{"no_forcing": true}}\nstart: (object "\\n")+ "end"\nobject: %json {json.dumps(SCHEMA)}\n'
MASKED = Grammar(ENDLESS, ())


def engine(source: str, weights: WeightFormat) -> PagedEngine:
    """A pool of its own."""
    model = ModelConfig(id="bench.masks-v1:0", source=source)
    pool = PoolConfig("bench", Role.BOTH, weights=weights, kv_mib=256)
    served = native_model(model, pool, CACHE)
    capabilities = native_capabilities(served, model, pool)
    memory = PoolMemory(capabilities.num_blocks, capabilities.layout.block_bytes)
    runner = native_runner(served, capabilities, "cpu", memory.view, CACHE)
    return assemble(pool, capabilities, runner, b"k", MonotonicClock())


def steps(asked: PagedEngine, batch: int, num_tokens: int, grammar: Grammar | None, temperature: float) -> list[float]:
    """CPU seconds of each step in which all sequences draw, but for the first few."""
    before = asked.load().counters.requests
    for number in range(batch):
        asked.submit(
            GenerationRequest(
                RequestId(str(before + number)),
                ModelId("m"),
                TenantId("t"),
                (2, 3 + number, 5),
                Stopping(num_tokens),
                Sampling(temperature=temperature, seed=before + number),
                grammar=grammar,
            )
        )
    times: list[float] = []
    while True:
        started = time.process_time()
        outcome = asked.step()
        if outcome is None:
            return times[4:]
        if outcome.failed:
            raise SystemExit(f"a request failed: {outcome.failed[0].reason}")
        if len(outcome.tokens) == batch:
            times.append(time.process_time() - started)


def with_tokens(checkpoint: Path, directory: Path) -> Path:
    """The same checkpoint, with a tokenizer if it has none."""
    if (checkpoint / "tokenizer.json").exists():
        return checkpoint
    for path in checkpoint.iterdir():
        (directory / path.name).symlink_to(path.resolve())
    size = json.loads((checkpoint / "config.json").read_text())["vocab_size"]
    known = json.loads((locate(DEMO) / "tokenizer.json").read_text())
    words = sorted(known["model"]["vocab"], key=len)
    vocab = dict.fromkeys(words) | dict.fromkeys(a + b for a, b in itertools.product(words[256::7], words[256::11]))
    tokenizer = {
        "model": {"vocab": {token: index for index, token in enumerate(itertools.islice(vocab, size))}},
        "decoder": known["decoder"],
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    return directory


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default=DEMO, help="a directory (default: the demo model)")
    parser.add_argument("--weights", default="checkpoint", help="their precision (default: the checkpoint's)")
    parser.add_argument("--batch", type=int, default=8, help="sequences (default: 8)")
    parser.add_argument("--tokens", type=int, default=64, help="steps of a round (default: 64)")
    parser.add_argument("--rounds", type=int, default=7, help="of each kind (default: 7)")
    parser.add_argument("--threads", type=int, default=1, help="that compute (default: 1)")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    table = Table("drawn", "vocabulary", "batch", "free", "held", "cost", "cost in the rounds")
    with tempfile.TemporaryDirectory() as directory:
        source = DEMO if asked.checkpoint == DEMO else str(with_tokens(Path(asked.checkpoint), Path(directory)))
        subject = engine(source, asked.weights)
        for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
            rounds = [
                [
                    statistics.median(steps(subject, asked.batch, asked.tokens, grammar, temperature))
                    for grammar in (None, MASKED)
                ]
                for _ in range(asked.rounds)
            ]
            free, held = (statistics.median(column) for column in zip(*rounds, strict=True))
            costs = sorted(b / a - 1 for a, b in rounds)
            table.add_row(
                name,
                str(subject.capabilities.vocab_size),
                str(asked.batch),
                f"{free * 1e3:.2f} ms",
                f"{held * 1e3:.2f} ms",
                f"{statistics.median(costs):+.1%}",
                f"{costs[0]:+.1%} to {costs[-1]:+.1%}",
            )
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
