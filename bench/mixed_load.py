"""Short chats with a long prompt now and then: both fixed ways of serving, and the router that decides for each.

    python tools/make_checkpoint.py qwen2.5-0.5b /tmp/half-a-billion
    python -m bench.mixed_load /tmp/half-a-billion
    python -m bench.mixed_load /tmp/half-a-billion --rate 0.5 --every 20 --seconds 40 --rounds 1 --json /tmp/mixed.json

Each system has two native workers of one core: `aggregated` two for both phases, `disaggregated` one for either, and
`router` the same two as that, where the decode worker may compute prompts too, in pieces that keep its steps within
105 ms. So do both workers for both phases of `aggregated-in-time` and `router-both`. Chats arrive at random, long
prompts about every so many seconds. All systems are asked the same in a round, one after the other. They all run from
the beginning, so that nothing is started in between; whoever is not asked has nothing to do. Times are what clients
see: to the first text, and between arrivals of text. A percentile is one of the requests, or gaps, of all rounds
together.

Before the first round, a short one that does not count lets the router learn what steps cost.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench.deployment import deployment
from bench.published.checkpoint import with_vocabulary
from twinfer.core.clock import MonotonicClock
from twinfer.loadtest.api import Options
from twinfer.loadtest.arrivals import LoadSpec
from twinfer.loadtest.ask import Endpoint
from twinfer.loadtest.http import Pool, read_origin
from twinfer.loadtest.lengths import read_lengths
from twinfer.loadtest.machine import Machine, this_machine
from twinfer.loadtest.openai import ChatCompletions
from twinfer.loadtest.preflight import probe
from twinfer.loadtest.record import Record
from twinfer.loadtest.runner import Runner
from twinfer.loadtest.statistics import percentile
from twinfer.loadtest.summary import gaps_s
from twinfer.loadtest.words import Passage, Writer
from twinfer.loadtest.work import Session, Turn

TWO_FOR_BOTH = 'pool=[{name="both",role="both",workers=2,speculation="off"}]'
TWO_IN_TIME = 'pool=[{name="both",role="both",workers=2,speculation="off",step_goal_ms=105}]'
ONE_FOR_EITHER = (
    'pool=[{name="prefill",role="prefill",speculation="off"},'
    '{name="decode",role="decode",speculation="off",step_goal_ms=105}]'
)
SYSTEMS = {
    "aggregated": (TWO_FOR_BOTH, "routing.policy=aggregated"),
    "aggregated-in-time": (TWO_IN_TIME, "routing.policy=aggregated"),
    "disaggregated": (ONE_FOR_EITHER, "routing.policy=disaggregated"),
    "router": (ONE_FOR_EITHER, "routing.policy=cost"),
    "router-both": (TWO_IN_TIME, "routing.policy=cost"),
}
USUAL = ("aggregated", "disaggregated", "router")
FIXED = ("aggregated", "aggregated-in-time", "disaggregated")
KINDS = ("chat", "long")
FIRST_LONG_S = 5.0
JITTER = 0.2
"""Of the time between two long prompts, either way."""
WARMUP_S = 15.0
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked in a round.

    Attributes:
        rate: chats per second, at random.
        chat: range of their prompts' tokens.
        chat_answer: tokens.
        every: seconds between long prompts, about.
        long, long_answer: tokens.
        seconds: for which requests are sent.
    """

    rate: float
    chat: str
    chat_answer: int
    every: float
    long: int
    long_answer: int
    seconds: float

    def sessions(self, seed: int) -> list[Session]:
        """The requests in the order in which they are due, each one with its moment; equal seeds give equal ones."""
        draw, lengths = random.Random(f"{seed}/mixed"), read_lengths(self.chat, "--chat")
        asked: list[tuple[float, int, int]] = []
        at_s = draw.expovariate(self.rate)
        while at_s < self.seconds:
            asked.append((at_s, lengths.draw(draw), self.chat_answer))
            at_s += draw.expovariate(self.rate)
        at_s = FIRST_LONG_S * draw.uniform(1.0 - JITTER, 1.0 + JITTER)
        while at_s < self.seconds:
            asked.append((at_s, self.long, self.long_answer))
            at_s += self.every * draw.uniform(1.0 - JITTER, 1.0 + JITTER)
        return [
            Session(number, (Turn(Passage((number + 1,), prompt, prompt), answer),), at_s)
            for number, (at_s, prompt, answer) in enumerate(sorted(asked))
        ]

    def kind(self, session: Session) -> str:
        """Of a request."""
        prompt = session.turns[0].prompt
        return "long" if isinstance(prompt, Passage) and prompt.num_tokens == self.long else "chat"


class Seen(msgspec.Struct, frozen=True):
    """What clients saw of one kind of request on one system; percentiles in seconds, 0 where there is nothing.

    Args:
        requests: answered in full.
        failed: the others.
        ttft_p50, ttft_p99, ttft_max: to the first text.
        itl_p50, itl_p99, itl_max: between arrivals of text.
        routes: answers by the way they went.
    """

    requests: int
    failed: int
    ttft_p50: float
    ttft_p99: float
    ttft_max: float
    itl_p50: float
    itl_p99: float
    itl_max: float
    routes: dict[str, int]


Records = dict[str, list[Record]]
"""Of requests, by kind."""


class Report(msgspec.Struct, frozen=True):
    """A whole run.

    Args:
        arguments: it was asked for with these.
        seen: by system and kind: `chat`, `long` and `all`.
        records: of all requests by system and kind, in the order of the rounds.
    """

    machine: Machine
    arguments: list[str]
    seen: dict[str, dict[str, Seen]]
    records: dict[str, Records]


def seen(records: Sequence[Record]) -> Seen:
    """Sum up."""
    good = [one for one in records if one.error is None]
    first = sorted(one.ttft_s for one in good if one.ttft_s is not None)
    gaps = sorted(gap for one in good for gap in gaps_s(one))
    ttft, itl = ([percentile(times, percent) for percent in (50, 99, 100)] for times in (first, gaps))
    routes = dict(Counter(one.route for one in good))
    return Seen(len(good), len(records) - len(good), ttft[0], ttft[1], ttft[2], itl[0], itl[1], itl[2], routes)


class System:
    """A running deployment and its clients."""

    def __init__(self, model: str, url: str) -> None:
        self._model = model
        self._url = url
        self._writer: Writer | None = None

    async def play(self, sessions: Sequence[Session]) -> list[Record]:
        """Ask all of them, each at its moment, and wait for the last answer."""
        clock, origin = MonotonicClock(), read_origin(self._url)
        api, pool = ChatCompletions(Options(self._model, ignore_eos=True)), Pool(origin, clock)
        endpoint = Endpoint(origin, api, pool, lambda path, headers, body: headers, TIMEOUT_S)
        if self._writer is None:
            self._writer = Writer(0)
            await probe(endpoint, self._writer, clock)
        self._writer.nonce += 1
        progress = await Runner(endpoint, self._writer, LoadSpec(mode="trace"), 0.0, clock).run(sessions)
        pool.close()
        return progress.records


@contextlib.contextmanager
def running(checkpoint: Path, settings: Sequence[str], folder: Path) -> Iterator[System]:
    """A deployment with these settings, its ledger in a folder of its own."""
    folder.mkdir()
    own = (*settings, f"identity.database=sqlite:///{folder / 'twinfer.db'}")
    arguments = [str(checkpoint), *(word for setting in own for word in ("--set", setting))]
    with deployment(arguments) as (model, url):
        yield System(model, url)


def rounds(load: Load, systems: Mapping[str, System], count: int, seed: int) -> dict[str, Records]:
    """So many rounds; what became of the requests of each system."""
    found: dict[str, Records] = {name: {kind: [] for kind in KINDS} for name in systems}
    warmup = replace(load, seconds=WARMUP_S).sessions(seed)
    for name, system in systems.items():
        print(f"{name}: {len(warmup)} requests that do not count", file=sys.stderr)
        asyncio.run(system.play(warmup))
    for number in range(count):
        sessions = load.sessions(seed + number)
        for name, system in systems.items():
            print(f"round {number + 1} of {count}: {name}, {len(sessions)} requests", file=sys.stderr)
            for record in asyncio.run(system.play(sessions)):
                found[name][load.kind(sessions[record.session])].append(record)
    return found


def table(found: Mapping[str, Mapping[str, Seen]]) -> Table:
    """One row for each kind of request on each system."""
    shown = Table(
        "requests", "system", "answered", "failed", "TTFT p50", "p99", "max", "ITL p50", "p99", "max", "routes"
    )
    for kind in (*KINDS, "all"):
        for system, kinds in found.items():
            one = kinds[kind]
            firsts = (f"{value:.2f} s" for value in (one.ttft_p50, one.ttft_p99, one.ttft_max))
            gaps = (f"{1e3 * value:.0f} ms" for value in (one.itl_p50, one.itl_p99, one.itl_max))
            routes = ", ".join(f"{count} {route}" for route, count in sorted(one.routes.items()))
            shown.add_row(kind, system, str(one.requests), str(one.failed), *firsts, *gaps, routes)
        shown.add_section()
    return shown


def verdicts(found: Mapping[str, Mapping[str, Seen]]) -> list[str]:
    """What the router's 99th percentiles are to those of the better fixed way, in words."""
    fixed, lines = [name for name in found if name in FIXED], list[str]()
    for router in (name for name in found if name not in FIXED and fixed):
        for kind in (*KINDS, "all"):
            changes = []
            for what in ("ttft_p99", "itl_p99"):
                best = min(getattr(found[name][kind], what) for name in fixed)
                changes.append(f"{getattr(found[router][kind], what) / best - 1.0:+.0%}" if best else "-")
            lines.append(f"{router}, {kind}: to the better fixed way p99 TTFT {changes[0]}, p99 ITL {changes[1]}")
    return lines


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.mixed_load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a directory with one file of weights")
    parser.add_argument("--rate", type=float, default=1.0, help="chats per second (default: 1)")
    parser.add_argument("--chat", default="60..200", help="tokens of their prompts (default: 60..200)")
    parser.add_argument("--chat-answer", type=int, default=32, help="and of their answers (default: 32)")
    parser.add_argument("--every", type=float, default=200.0, help="seconds between long prompts (default: 200)")
    parser.add_argument("--long", type=int, default=4096, help="tokens of these (default: 4096)")
    parser.add_argument("--long-answer", type=int, default=20, help="and of their answers (default: 20)")
    parser.add_argument("--seconds", type=float, default=110.0, help="of each system in a round (default: 110)")
    parser.add_argument("--rounds", type=int, default=1, help="in which all systems have their turn (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round's requests (default: 1)")
    parser.add_argument("--ttft-goal-ms", type=float, default=2000.0, help="that the router knows (default: 2000)")
    parser.add_argument("--tpot-goal-ms", type=float, default=150.0, help="that the router knows (default: 150)")
    parser.add_argument(
        "--systems", nargs="+", default=["aggregated", "disaggregated", "router"], choices=list(SYSTEMS)
    )
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="passed on to twinfer serve")
    parser.add_argument("--json", type=Path, help="write everything there, each request with its moments")
    return parser


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Records]:
    """Start all systems, and put the load on them."""
    lengths = asked.chat, asked.chat_answer, asked.every, asked.long, asked.long_answer
    goals = (f"routing.ttft_goal_ms={asked.ttft_goal_ms}", f"routing.tpot_goal_ms={asked.tpot_goal_ms}")
    checkpoint = with_vocabulary(asked.checkpoint, folder / "checkpoint")
    with contextlib.ExitStack() as stack:
        systems = {
            name: stack.enter_context(running(checkpoint, (*SYSTEMS[name], *goals, *asked.set), folder / name))
            for name in asked.systems
        }
        return rounds(Load(asked.rate, *lengths, asked.seconds), systems, asked.rounds, asked.seed)


def main() -> int:
    """Measure and print."""
    asked = options().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = measure(asked, Path(folder))
    found = {
        name: {kind: seen(ones) for kind, ones in kinds.items()} | {"all": seen([*kinds["chat"], *kinds["long"]])}
        for name, kinds in records.items()
    }
    console = Console(width=150)
    console.print(table(found))
    console.print("\n".join(verdicts(found)))
    if asked.json is not None:
        asked.json.write_bytes(msgspec.json.encode(Report(this_machine(), sys.argv[1:], found, records)))
        console.print(f"all of it is in {asked.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
