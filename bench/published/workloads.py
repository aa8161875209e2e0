"""What is asked: three workloads, each with its rate and its objectives.

Lengths are those of 400 requests, drawn at random, of each of Azure's traces of 2023 (Patel et al., "Splitwise", ISCA
2024; AzurePublicDataset, CC-BY 4.0), divided for a machine of two cores as each workload says. Objectives are Twinfer's
own defaults, ``routing.ttft_goal_ms`` and ``routing.tpot_goal_ms``, but for prompts that take any engine seconds.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from twinfer.loadtest.slo import Objectives

TRACES = Path(__file__).parent
FIRST_MOMENT = "2023-11-16 00:00:00"
"""Of traces that are written here: arrivals come from the rate, not from them."""
SHORTEST_PROMPT = 8
INTERACTIVE_TPOT_S = 0.05
"""For people who watch, and for agents that wait: at least twenty tokens a second for each of them."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """Lengths of a trace, made smaller.

    Attributes:
        trace: a file beside this one.
        prompts, answers: what lengths are divided by.
        shared_tokens: text that all prompts begin with, before their own.
        longest_answer: more is cut off.
    """

    trace: str
    prompts: int
    answers: int
    shared_tokens: int = 0
    longest_answer: int = 512

    def rows(self) -> list[tuple[int, int]]:
        """Tokens of each prompt and its longest answer."""
        with (TRACES / self.trace).open(encoding="utf-8", newline="") as file:
            lengths = [(int(row["input_tokens"]), int(row["output_tokens"])) for row in csv.DictReader(file)]
        return [
            (
                self.shared_tokens + max(SHORTEST_PROMPT, given // self.prompts),
                min(self.longest_answer, max(2, answered // self.answers)),
            )
            for given, answered in lengths
        ]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Prompts and answers of one length, in tokens."""

    prompt: int
    answer: int

    def rows(self) -> list[tuple[int, int]]:
        """Tokens of each prompt and its longest answer."""
        return [(self.prompt, self.answer)] * 400


@dataclass(frozen=True, slots=True)
class Workload:
    """One column of the benchmark.

    Attributes:
        name: in file names.
        title: in the report.
        said: what it is, in a sentence.
        lengths: of its requests, in order.
        rate: requests per second at fixed rates, and where a search begins.
        seconds: for which requests are sent, at fixed rates.
        objectives: what a good request keeps.
    """

    name: str
    title: str
    said: str
    lengths: Scaled | Fixed
    rate: float
    seconds: float
    objectives: Objectives

    @property
    def shared_tokens(self) -> int:
        """Text that all prompts begin with."""
        return self.lengths.shared_tokens if isinstance(self.lengths, Scaled) else 0

    @property
    def interactive(self) -> Objectives:
        """The same with faster answers; the same requests are held against both."""
        return msgspec.structs.replace(self.objectives, tpot_s=INTERACTIVE_TPOT_S)


CHAT = Workload(
    "chat",
    "chat",
    "lengths of Azure's conversations, prompts and answers divided by 4",
    Scaled("azure_conversation.csv", 4, 4),
    rate=2.0,
    seconds=28.0,
    objectives=Objectives(ttft_s=2.0, tpot_s=0.1),
)
LONG = Workload(
    "long",
    "long prompts",
    "2,048 tokens in, 64 out: as 8,192 and 256, divided by 4",
    Fixed(2048, 64),
    rate=0.4,
    seconds=50.0,
    objectives=Objectives(ttft_s=5.0, tpot_s=0.1),
)
CODE = Workload(
    "code",
    "code completion",
    "256 tokens that all prompts share, then lengths of Azure's code prompts divided by 4; answers of Azure's lengths, "
    "at most 256",
    Scaled("azure_code.csv", 4, 1, shared_tokens=256, longest_answer=256),
    rate=1.2,
    seconds=34.0,
    objectives=Objectives(ttft_s=2.0, tpot_s=0.1),
)
WORKLOADS = (CHAT, LONG, CODE)


def write_trace(rows: Sequence[tuple[int, int]], path: Path) -> None:
    """A file in the form of Azure's traces."""
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    lines += [f"{FIRST_MOMENT},{prompt},{answer}" for prompt, answer in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
