"""What long prompts do to those who are reading an answer: two cores together, against one for each phase.

    python tools/make_checkpoint.py qwen2.5-0.5b /tmp/half-a-billion
    python -m bench.interference /tmp/half-a-billion
    python -m bench.interference /tmp/half-a-billion --prompt-tokens 2048 --every 8 --seconds 120

Eight streams decode all the time, each asking again when its answer ends, while a prompt of 4,096 tokens that nobody
has sent before arrives at a fixed pace. `one for both` is one worker on two cores, `two for both` two workers with a
core each, `prefill | decode` one core for either phase. All have their turn in every round. Gaps are those between the
tokens of the eight streams; prompts whose answer had not begun by the end count as waiting.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
from rich.console import Console
from rich.table import Table

from bench.deployment import deployment

STREAMS = 8
STREAM_TOKENS = 256
TOPOLOGIES = {
    "one for both": ('pool=[{name="both",role="both"}]',),
    "two for both": ('pool=[{name="both",role="both",workers=2}]',),
    "prefill | decode": (),
}


@dataclass
class Findings:
    """What clients saw of one topology, in seconds and tokens.

    Attributes:
        gaps: between tokens of the streams.
        first: from a long prompt to its first token.
        sent: long prompts.
        seconds: observed.
    """

    gaps: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    sent: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Load:
    """The clients of one deployment."""

    def __init__(self, client: httpx.AsyncClient, model: str, findings: Findings) -> None:
        self._client = client
        self._model = model
        self._findings = findings

    async def read(self, number: int) -> None:
        """One stream after another, until cancelled."""
        while True:
            last: float | None = None
            async for now in self._tokens(f"{number} {time.perf_counter_ns()} tell me", STREAM_TOKENS):
                if last is not None:
                    self._findings.gaps.append(now - last)
                last = now
                self._findings.tokens += 1

    async def ask(self, prompt: str) -> None:
        """One long prompt, of whose answer only the beginning matters."""
        self._findings.sent += 1
        start = time.perf_counter()
        async for now in self._tokens(f"{time.perf_counter_ns()} {prompt}", 2):
            self._findings.first.append(now - start)
            return

    async def count(self, prompt: str) -> int:
        """Tokens of a prompt."""
        body = {"model": self._model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 1}
        answer = (await self._client.post("/v1/chat/completions", json=body)).raise_for_status()
        return int(answer.json()["usage"]["prompt_tokens"])

    async def _tokens(self, prompt: str, max_tokens: int) -> AsyncIterator[float]:
        """When each token of an answer arrived."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "ignore_eos": True,
            "logprobs": True,
            "stream": True,
        }
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line.removeprefix("data: "))["choices"]:
                        for _ in (choice.get("logprobs") or {}).get("content") or ():
                            yield time.perf_counter()


async def observe(url: str, model: str, asked: argparse.Namespace, findings: Findings) -> None:
    """Put the load on a deployment for a while."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        load = Load(client, model, findings)
        words = await load.count("x = 1\n" * 100) / 100
        prompt = "x = 1\n" * int(asked.prompt_tokens / words)
        before = Load(client, model, Findings())
        await before.ask(prompt)
        tasks = [asyncio.create_task(load.read(number)) for number in range(STREAMS)]
        start = time.perf_counter()
        while time.perf_counter() - start < asked.seconds:
            tasks.append(asyncio.create_task(load.ask(prompt)))
            await asyncio.sleep(asked.every)
        findings.seconds += time.perf_counter() - start
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


def table(found: dict[str, Findings]) -> Table:
    """One row for each topology."""
    shown = Table("workers", "gap p50", "p99", "max", "tokens/s", "prompts", "waiting", "TTFT p50")
    for name, findings in found.items():
        gaps = statistics.quantiles(findings.gaps, n=100)
        shown.add_row(
            name,
            *(f"{seconds * 1e3:.0f} ms" for seconds in (gaps[49], gaps[98], max(findings.gaps))),
            f"{findings.tokens / findings.seconds:.1f}",
            str(findings.sent),
            str(findings.sent - len(findings.first)),
            f"{statistics.median(findings.first):.1f} s" if findings.first else "-",
        )
    return shown


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="'demo' or a directory")
    parser.add_argument("--prompt-tokens", type=int, default=4096, help="of each long prompt (default: 4096)")
    parser.add_argument("--every", type=float, default=12.0, help="seconds between long prompts (default: 12)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each topology in a round (default: 60)")
    parser.add_argument("--rounds", type=int, default=1, help="in which all topologies have their turn (default: 1)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="passed on to twinfer serve")
    asked = parser.parse_args()
    console, found = Console(), {name: Findings() for name in TOPOLOGIES}
    for number in range(asked.rounds):
        for name, settings in TOPOLOGIES.items():
            own = [asked.model, *(part for setting in (*settings, *asked.set) for part in ("--set", setting))]
            with console.status(f"round {number + 1} of {asked.rounds}: {name}"), deployment(own) as (model, url):
                asyncio.run(observe(url, model, asked, found[name]))
    console.print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
