"""What the host tier saves: time to the first token of a prompt that is computed, in the pool, or brought back.

    python -m bench.host_tier
    python tools/make_checkpoint.py qwen2.5-0.5b /tmp/half-a-billion
    python -m bench.host_tier /tmp/half-a-billion --tokens 4096

Every prompt is asked for three times: new, at once again, and when others have pushed it out of the pool, which has
room for two. An engine without a tier takes turns with one that has it: what the copies cost those who compute shows
there. Last, while a prompt comes back another request decodes: its longest step is what it notices.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from twinfer.core.capabilities import Role
from twinfer.core.clock import MonotonicClock
from twinfer.core.config import ModelConfig, PoolConfig
from twinfer.core.ids import ModelId, RequestId, TenantId
from twinfer.core.request import GenerationRequest, Sampling, Stopping
from twinfer.engine.assemble import assemble
from twinfer.engine.native import native_capabilities, native_model, native_runner
from twinfer.engine.paged import PagedEngine
from twinfer.kv.memory import PoolMemory
from twinfer.model.checkpoint import DEMO

CACHE = Path.home() / ".cache" / "twinfer"
POOL_PROMPTS = 2.5
TIER_PROMPTS = 12


def engine(source: str, num_tokens: int, tier_prompts: int) -> PagedEngine:
    """One whose pool and tier have room for so many prompts."""
    model, pool = ModelConfig(id="bench.host-v1:0", source=source), PoolConfig("bench", Role.BOTH, kv_mib=8)
    served = native_model(model, pool, CACHE)
    block_bytes = served.layout(pool.block_tokens).block_bytes
    blocks = [int(prompts * num_tokens / pool.block_tokens) for prompts in (POOL_PROMPTS, tier_prompts)]
    pool = PoolConfig("bench", Role.BOTH, kv_mib=1 + (blocks[0] * block_bytes >> 20))
    capabilities = native_capabilities(served, model, pool)
    memory = PoolMemory(capabilities.num_blocks + blocks[1], block_bytes, prefault=False)
    memory.view[:] = bytes(memory.size)
    made = assemble(
        pool, capabilities, native_runner(served, capabilities, "cpu", memory.view, CACHE), b"k", MonotonicClock()
    )
    made.use_host_tier(memory.view, 1.0)
    return made


def request(name: str, prompt: Sequence[int], num_tokens: int = 1) -> GenerationRequest:
    """A greedy one."""
    stopping = Stopping(num_tokens, min_tokens=num_tokens)
    return GenerationRequest(
        RequestId(name), ModelId("m"), TenantId("t"), tuple(prompt), stopping, Sampling(temperature=0)
    )


def first_token(asked: PagedEngine, name: str, prompt: Sequence[int]) -> float:
    """Seconds to a prompt's first token; what is to be copied afterwards is, before it returns."""
    started = time.perf_counter()
    asked.submit(request(name, prompt))
    took = 0.0
    while (outcome := asked.step()) is not None:
        if outcome.tokens:
            took = time.perf_counter() - started
    return took


def step_times(asked: PagedEngine, prompt: Sequence[int]) -> tuple[float, float]:
    """Seconds of a usual step of one who decodes, and of its longest while a prompt comes back."""
    asked.submit(request("decodes", (5, 6, 7), 200))
    for _ in range(8):
        asked.step()
    alone, meanwhile = list[float](), list[float]()
    while len(alone) < 30:
        alone.append(_timed_step(asked))
    asked.submit(request("returns", prompt))
    before = asked.load().counters.host_tokens
    while asked.load().counters.host_tokens < before + len(prompt) // 16 * 16 - 16:
        meanwhile.append(_timed_step(asked))
    while asked.step() is not None:
        pass
    return statistics.median(alone), max(meanwhile)


def _timed_step(asked: PagedEngine) -> float:
    started = time.perf_counter()
    asked.step()
    return time.perf_counter() - started


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default=DEMO, help="a directory (default: the demo model)")
    parser.add_argument("--tokens", type=int, default=1024, help="of each prompt (default: 1024)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="that compute (default: 1)")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    without, tiered = (engine(asked.checkpoint, asked.tokens, prompts) for prompts in (0, TIER_PROMPTS))
    vocab, numbers = tiered.capabilities.vocab_size, random.Random(1)
    prompts = [[numbers.randrange(vocab) for _ in range(asked.tokens)] for _ in range(asked.rounds + 2)]
    times: dict[str, list[float]] = {"computed, without a tier": [], "computed": [], "in the pool": []}
    for number, prompt in enumerate(prompts):
        times["computed, without a tier"].append(first_token(without, f"{number}", prompt))
        times["computed"].append(first_token(tiered, f"{number}", prompt))
        times["in the pool"].append(first_token(tiered, f"{number} again", prompt))
    before = tiered.load().counters
    times["in the host tier"] = [first_token(tiered, f"{n} back", p) for n, p in enumerate(prompts[: asked.rounds])]
    after = tiered.load().counters
    if after.host_tokens - before.host_tokens < asked.rounds * (asked.tokens - 32):
        raise SystemExit("not all of the prompts were in the host tier; ask for fewer rounds")
    table = Table("prompt", "least", "median", "most")
    for name, seconds in times.items():
        table.add_row(name, *(f"{1e3 * f(seconds):.1f} ms" for f in (min, statistics.median, max)))
    console = Console()
    console.print(f"{asked.checkpoint}: time to the first token of {asked.tokens} tokens, {asked.threads} threads")
    console.print(table)
    usual, longest = step_times(tiered, prompts[-1])
    console.print(f"another's decode step: {1e3 * usual:.1f} ms; its longest meanwhile {1e3 * longest:.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
