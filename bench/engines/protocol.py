"""What every engine is asked, and how it answers: lines of JSON on standard output. Needs nothing but Python.

1. The program is started with the checkpoint, the number of threads and the work, and gets ready, which may take long.
2. Each measurement is warmed up once and then repeated; the engine says how long each repetition took.
3. Prompts are random token ids, different in every repetition, so that no cache helps; answers never end early.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

PREFILL_TOKENS = 512
CONTEXT_TOKENS = 64
"""Of each sequence before the measured steps of decoding."""
DECODE_STEPS = 32
SMALLEST_ID, LARGEST_ID = 1_000, 100_000
"""Ordinary tokens in the vocabulary of every shape that is measured."""


@dataclass(frozen=True)
class Measurement:
    """One cell of the table.

    Attributes:
        phase: ``prefill`` or ``decode``.
        batch: sequences at once.
        tokens: computed in each repetition.
        seconds: that each repetition took.
    """

    phase: str
    batch: int
    tokens: int
    seconds: Sequence[float]


class Bench(Protocol):
    """An engine that is ready."""

    def prefill(self, prompt: list[int]) -> float:
        """Seconds from a prompt to its first token."""
        ...

    def decode(self, prompts: list[list[int]], steps: int) -> float:
        """Seconds of so many steps of decoding for all prompts at once, their prefill not counted."""
        ...


def arguments(description: str | None) -> argparse.Namespace:
    """The command line of every engine's program."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("checkpoint", help="directory in Hugging Face format")
    parser.add_argument("--precision", default="bf16", help="of the weights")
    parser.add_argument("--device", default="cpu", help="for engines that know others than the CPU")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    return parser.parse_args()


def measure(bench: Bench, repeats: int, batches: Sequence[int]) -> None:
    """Do all of the work and print each measurement as soon as it is there."""
    draw = random.Random(0)

    def prompt(num_tokens: int) -> list[int]:
        return [draw.randint(SMALLEST_ID, LARGEST_ID) for _ in range(num_tokens)]

    times = [bench.prefill(prompt(PREFILL_TOKENS)) for _ in range(repeats + 1)]
    say(Measurement("prefill", 1, PREFILL_TOKENS, times[1:]))
    for batch in batches:
        times = [bench.decode([prompt(CONTEXT_TOKENS) for _ in range(batch)], DECODE_STEPS) for _ in range(repeats + 1)]
        say(Measurement("decode", batch, batch * DECODE_STEPS, times[1:]))


def say(measurement: Measurement) -> None:
    """One line."""
    print(json.dumps(asdict(measurement)), flush=True)
