"""Short workloads out of published traces: a stretch of one, faster or slower, its lengths scaled, cut at both ends."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from twinfer.core.traces import TraceRequest, read_trace

WORDS = ("and", "the", "sea", "for", "you", "out", "all", "are")
"""Of about one token each; a prompt of them in any order begins like no other after a few."""

FEWEST, MOST = 20, 300
"""Requests of a workload."""
ROUNDS_TO_FILL = 5


@dataclass(frozen=True, slots=True)
class Workload:
    """Which requests.

    Attributes:
        trace: file name of a published trace.
        seed: of the stretch, and of the words.
        requests: how many.
        seconds: in which they arrive; gaps between them keep their proportions.
        scale: of prompts and of answers.
        shortest, longest: tokens of a prompt.
        longest_answer: in tokens; none is shorter than ``shortest_answer``.
    """

    trace: str
    seed: int
    requests: int
    seconds: float
    scale: tuple[float, float] = (1.0, 1.0)
    shortest: int = 80
    longest: int = 4000
    shortest_answer: int = 4
    longest_answer: int = 1000

    def __str__(self) -> str:
        prompts, answers = self.scale
        return (
            f"{self.requests} requests of {self.trace} (seed {self.seed}) in {self.seconds:g} s, "
            f"prompts x {prompts:g}, answers x {answers:g}"
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when, about how many words, and how many tokens of an answer."""

    at_s: float
    words: int
    tokens: int


def filled(workload: Workload, busy: Callable[[Workload], float], share: float) -> Workload:
    """As many requests in the same time as keep the busiest worker in steps for that share of it.

    Args:
        busy: the share of the time for a workload.
    """
    for _ in range(ROUNDS_TO_FILL):
        wanted = round(workload.requests * min(2.0, share / busy(workload)))
        workload = replace(workload, requests=max(FEWEST, min(MOST, wanted)))
    return workload


def chosen(workload: Workload, directory: Path) -> list[Asked]:
    """The requests of a workload.

    Args:
        directory: with the published traces.
    """
    rows = read_trace(directory / workload.trace)
    first = random.Random(workload.seed).randrange(len(rows) - workload.requests)
    return scaled(rows[first : first + workload.requests], workload)


def scaled(rows: Sequence[TraceRequest], workload: Workload) -> list[Asked]:
    """These rows, in the time and of the lengths of a workload."""
    begin, end = rows[0].arrival_s, rows[-1].arrival_s
    pace = workload.seconds / max(end - begin, 1e-9)
    prompts, answers = workload.scale
    return [
        Asked(
            (row.arrival_s - begin) * pace,
            min(max(round(row.input_tokens * prompts), workload.shortest), workload.longest),
            min(max(round(row.output_tokens * answers), workload.shortest_answer), workload.longest_answer),
        )
        for row in rows
    ]


def prompt(asked: Asked, number: int, seed: int) -> str:
    """Words that no other prompt begins with."""
    return " ".join(random.Random(seed << 20 | number).choices(WORDS, k=asked.words))
