"""What prompt lookup gains where an answer repeats its prompt, and what it costs where it does not.

    python -m bench.speculation
    python -m bench.speculation --tokens 200 --prompts 12

The demo model writes on in Python files: `edit` gives it the first half of a file after the whole of it, as an editor
that asks for a changed copy does; `new` gives it the beginning of a file alone; `drawn` is `new` at temperature 1. Each
prompt is answered with and without guesses, one after the other, and greedy answers are compared.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from twinfer.core.capabilities import Role
from twinfer.core.clock import MonotonicClock
from twinfer.core.config import ModelConfig, PoolConfig
from twinfer.core.ids import ModelId, RequestId, TenantId
from twinfer.core.request import GenerationRequest, Sampling, Stopping
from twinfer.engine.assemble import assemble
from twinfer.engine.native import native_capabilities, native_model, native_runner
from twinfer.engine.paged import PagedEngine
from twinfer.kv.memory import PoolMemory
from twinfer.model.checkpoint import DEMO, locate

CACHE = Path.home() / ".cache" / "twinfer"
MAX_PROMPT_TOKENS = 600


@dataclass(frozen=True, slots=True)
class Answer:
    """Tokens of one answer, the seconds from its first to its last, and the guesses in it."""

    tokens: tuple[int, ...]
    seconds: float
    guesses: int
    right: int


def engine(speculation: str) -> PagedEngine:
    """The demo model as a pool of its own."""
    model = ModelConfig(id="bench.demo-v1:0")
    pool = PoolConfig("bench", Role.BOTH, speculation=speculation)  # type: ignore[arg-type]
    served = native_model(model, pool, CACHE)
    capabilities = native_capabilities(served, model, pool)
    memory = PoolMemory(capabilities.num_blocks, capabilities.layout.block_bytes)
    return assemble(
        pool, capabilities, native_runner(served, capabilities, "cpu", memory.view, CACHE), b"k", MonotonicClock()
    )


def answer(asked: PagedEngine, prompt: list[int], num_tokens: int, temperature: float) -> Answer:
    """Ask once."""
    before = asked.load().counters
    sampling = Sampling(temperature=temperature, seed=7)
    request_id = RequestId(str(before.requests))
    asked.submit(
        GenerationRequest(request_id, ModelId("m"), TenantId("t"), tuple(prompt), Stopping(num_tokens), sampling)
    )
    tokens: list[int] = []
    start = 0.0
    while (outcome := asked.step()) is not None:
        tokens += [token.token_id for token in outcome.tokens]
        start = start or (time.perf_counter() if tokens else 0.0)
    after = asked.load().counters
    guesses, right = after.guessed_tokens - before.guessed_tokens, after.right_guesses - before.right_guesses
    return Answer(tuple(tokens), time.perf_counter() - start, guesses, right)


def prompts(kind: str, tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Of Python's own library."""
    found = []
    for path in sorted(Path(statistics.__file__).parent.glob("*.py")):
        ids = tokenizer.encode(path.read_text(encoding="utf-8"), add_special_tokens=False).ids[:MAX_PROMPT_TOKENS]
        if len(ids) == MAX_PROMPT_TOKENS:
            half = ids[: MAX_PROMPT_TOKENS // 2]
            found.append([*ids, *half] if kind == "edit" else half)
    return found[:: max(1, len(found) // count)][:count]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=128, help="of each answer (default: 128)")
    parser.add_argument("--prompts", type=int, default=10, help="of each kind (default: 10)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(locate(DEMO, CACHE) / "tokenizer.json"))
    engines = {name: engine(name) for name in ("off", "lookup")}
    table = Table("text", "tokens/s", "with guesses", "gain", "guesses", "right", "same answers")
    for kind, temperature in (("edit", 0.0), ("new", 0.0), ("drawn", 1.0)):
        pairs = []
        for prompt in prompts(kind, tokenizer, asked.prompts):
            plain, guessed = (answer(each, prompt, asked.tokens, temperature) for each in engines.values())
            pairs.append((plain, guessed))
        speeds = [[(len(one.tokens) - 1) / one.seconds for one in pair] for pair in pairs]
        gain = statistics.median(guessed / plain for plain, guessed in speeds)
        same = sum(plain.tokens == guessed.tokens for plain, guessed in pairs)
        table.add_row(
            kind,
            *(f"{statistics.median(column):.0f}" for column in zip(*speeds, strict=True)),
            f"{gain - 1:+.0%}",
            str(sum(guessed.guesses for _, guessed in pairs)),
            str(sum(guessed.right for _, guessed in pairs)),
            f"{same} of {len(pairs)}",
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
