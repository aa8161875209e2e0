"""Four service tiers that ask for more than there is: who waits, who is sent away, and whether anybody starves.

    python -m bench.tiers
    python -m bench.tiers --overload 2 --seconds 120 --short-of decode

Emulated workers, so that what a deployment can do is known: `--short-of prefill` computes ten prompts in a second,
`--short-of decode` has room for about ten answers at once. Everything else is real: processes, HTTP, handoffs, queues.
Requests arrive at random times. The reserved, priority and default tiers ask for 0.1, 0.2 and 0.4 of what there is,
flex for all the rest. Times are to the first token, and the longest is the longest that anybody waited who was served.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx
from rich.console import Console
from rich.table import Table

from bench.deployment import deployment
from twinfer.core.service import Tier

SHARES = {Tier.RESERVED: 0.1, Tier.PRIORITY: 0.2, Tier.DEFAULT: 0.4}
"""Of what the deployment can do; flex asks for what is missing to the overload."""
MODEL = "twinfer.emulated-v1:0"
TEXT = "who comes first and who waits " * 24
OUTPUT = {"prefill": 8, "decode": 40}
"""Tokens of an answer."""
PROMPTS_PER_S = 10.0
STEP_S = 0.02
ROOM_TOKENS = {"prefill": 64 * 2048, "decode": 2048}
"""Of KV on the decode worker."""
TOKENS_PER_MIB = 2048
CONFIG = """
[[model]]
id = "{model}"

[[quota]]
reserved_tokens_per_min = 10_000_000

[gateway]
max_requests = 48
first_token_timeout_s = 300

[routing]
policy = "disaggregated"

[[pool]]
name = "prefill"
role = "prefill"
engine = "emulated"
kv_mib = 16
max_step_tokens = 64
emulation.prefill_tokens_per_s = {prefill_rate}
emulation.num_layers = 4

[[pool]]
name = "decode"
role = "decode"
engine = "emulated"
kv_mib = {decode_mib}
emulation.decode_step_ms = {step_ms}
emulation.prefill_tokens_per_s = {prefill_rate}
emulation.num_layers = 4
"""


@dataclass
class Findings:
    """What the clients of one tier saw, in seconds.

    Attributes:
        first: from the request to the first token of those that were answered.
        refused: the others, by status.
        broken: answers that began and did not end as they should.
        other: answers that were served as another tier.
    """

    sent: int = 0
    first: list[float] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    hints: list[float] = field(default_factory=list)
    broken: int = 0
    other: int = 0

    def quantile(self, share: float) -> float:
        """Of the times to the first token; at least one was answered."""
        ordered = sorted(self.first)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def config(short_of: str, prompt_tokens: int) -> str:
    """A deployment that has too little of one thing, and enough of the other, for prompts of this length."""
    prompts_per_s = PROMPTS_PER_S * (1 if short_of == "prefill" else 4)
    return CONFIG.format(
        model=MODEL,
        prefill_rate=prompts_per_s * prompt_tokens,
        decode_mib=ROOM_TOKENS[short_of] // TOKENS_PER_MIB,
        step_ms=STEP_S * 1e3,
    )


def capacity(short_of: str, prompt_tokens: int) -> float:
    """Requests per second that such a deployment serves at most, about."""
    if short_of == "prefill":
        return PROMPTS_PER_S
    rows = ROOM_TOKENS[short_of] / (prompt_tokens + OUTPUT[short_of] / 2)
    return rows / (OUTPUT[short_of] * STEP_S)


def arrivals(rate: float, overload: float, seconds: float, seed: int) -> list[tuple[float, Tier]]:
    """When whom: each tier at random, and at its share of the rate that can be served."""
    draw = random.Random(seed)
    shares = SHARES | {Tier.FLEX: overload - sum(SHARES.values())}
    found: list[tuple[float, Tier]] = []
    for tier, share in shares.items():
        at = draw.expovariate(rate * share)
        while at < seconds:
            found.append((at, tier))
            at += draw.expovariate(rate * share)
    return sorted(found)


class Clients:
    """All who ask."""

    def __init__(self, client: httpx.AsyncClient, max_tokens: int) -> None:
        self._client = client
        self._max_tokens = max_tokens
        self.found = {tier: Findings() for tier in Tier}

    async def ask(self, number: int, tier: Tier, at: float) -> None:
        """One request, at a time of the loop's clock."""
        loop, found = asyncio.get_running_loop(), self.found[tier]
        await asyncio.sleep(max(0.0, at - loop.time()))
        found.sent += 1
        start = loop.time()
        async with self._client.stream("POST", path("converse-stream"), json=self._body(number, tier)) as answer:
            first_s = loop.time() - start
            body = await answer.aread()
        if answer.status_code != 200:
            found.refused[answer.status_code] += 1
            found.hints.append(int(answer.headers["x-amz-retry-after"]) / 1e3)
            return
        found.first.append(first_s)
        found.broken += b'"stopReason":"max_tokens"' not in body
        found.other += b'"serviceTier":{"type":"%s"}' % tier.encode() not in body

    def _body(self, number: int, tier: Tier) -> dict[str, object]:
        return {
            "messages": [{"role": "user", "content": [{"text": f"{number} {TEXT}"}]}],
            "inferenceConfig": {"maxTokens": self._max_tokens},
            "additionalModelRequestFields": {"ignore_eos": True},
            "serviceTier": {"type": tier.value},
        }


def path(operation: str) -> str:
    """Of an operation of Bedrock's runtime API."""
    return f"/model/{quote(MODEL, safe='')}/{operation}"


async def count_tokens(url: str) -> int:
    """Tokens of a prompt."""
    body = {"messages": [{"role": "user", "content": [{"text": f"1000 {TEXT}"}]}], "inferenceConfig": {"maxTokens": 1}}
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        answer = (await client.post(path("converse"), json=body)).raise_for_status()
    return int(answer.json()["usage"]["inputTokens"])


async def offer(url: str, asked: Sequence[tuple[float, Tier]], max_tokens: int) -> dict[Tier, Findings]:
    """Put a load on a deployment, and wait until the last answer has ended."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        clients, start = Clients(client, max_tokens), asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for number, (at, tier) in enumerate(asked):
                group.create_task(clients.ask(1000 + number, tier, start + at))
    return clients.found


def table(found: dict[Tier, Findings], seconds: float) -> Table:
    """One row for each tier."""
    shown = Table("tier", "sent/s", "served/s", "TTFT p50", "p99", "longest", "refused", "told to wait", "broken")
    for tier, findings in found.items():
        refused = ", ".join(f"{count} x {status}" for status, count in sorted(findings.refused.items()))
        times = [findings.quantile(0.5), findings.quantile(0.99), max(findings.first)] if findings.first else []
        shown.add_row(
            tier.value,
            f"{findings.sent / seconds:.2f}",
            f"{len(findings.first) / seconds:.2f}",
            *([f"{1e3 * value:.0f} ms" for value in times] or ["-"] * 3),
            refused or "none",
            f"{statistics.median(findings.hints):.1f} s" if findings.hints else "-",
            str(findings.broken + findings.other),
        )
    return shown


def preemptions(url: str) -> int:
    """How often somebody gave way on the workers."""
    lines = httpx.get(f"{url}/metrics", timeout=10).raise_for_status().text.splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("twinfer_worker_preemptions_total{")))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.tiers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short-of", choices=sorted(OUTPUT), default="prefill", help="(default: prefill)")
    parser.add_argument("--overload", type=float, default=1.75, help="times what can be served (default: 1.75)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals (default: 1)")
    asked = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "deployment.toml"
        place.write_text(config(asked.short_of, 1))
        with deployment(["--config", str(place)]) as (_, url):
            prompt_tokens = asyncio.run(count_tokens(url))
        place.write_text(config(asked.short_of, prompt_tokens))
        served = capacity(asked.short_of, prompt_tokens)
        load = arrivals(served, asked.overload, asked.seconds, asked.seed)
        with console.status(f"{len(load)} requests"), deployment(["--config", str(place)]) as (_, url):
            start = time.monotonic()
            found = asyncio.run(offer(url, load, OUTPUT[asked.short_of]))
            lasted, gave_way = time.monotonic() - start, preemptions(url)
    asked_for = f"{asked.overload:g} x {served:.1f} requests/s for {asked.seconds:g} s"
    console.print(f"short of {asked.short_of}: {asked_for}; the last answer ended after {lasted:.0f} s")
    console.print(table(found, asked.seconds))
    console.print(f"{gave_way} times an answer gave way to another")
    return 0


if __name__ == "__main__":
    sys.exit(main())
