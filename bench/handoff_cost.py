"""What a handoff costs a client, by length of prompt: a real deployment, a real stream, both sides' own clocks.

    python tools/make_checkpoint.py qwen2.5-0.5b /tmp/half-a-billion
    python -m bench.handoff_cost /tmp/half-a-billion
    python -m bench.handoff_cost /tmp/half-a-billion --tokens 128 1024 --throttled

The cost of a handoff is (second token - first token - the median gap of the others) + the reservation. With
``--throttled`` the link is then slowed down so that the transfer takes half as long as the prefill, and the share of it
that hides behind the computation is 1 - exposed / transfer.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from bench.deployment import deployment

OUTPUT_TOKENS = 17
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Run:
    """One request, in milliseconds.

    Attributes:
        gap_ms: from the first token to the second.
        step_ms: median gap of the others.
    """

    prompt_tokens: int
    transfer_bytes: int
    reserve_ms: float
    prefill_ms: float
    exposed_ms: float
    gap_ms: float
    step_ms: float

    @property
    def cost_ms(self) -> float:
        """What the handoff added."""
        return self.gap_ms - self.step_ms + self.reserve_ms


def stream(client: httpx.Client, model: str, prompt: str) -> Run:
    """Ask once, and time every token as it arrives."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": OUTPUT_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "logprobs": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    arrivals: list[float] = []
    last: dict[str, dict[str, float]] = {}
    with client.stream(
        "POST", "/v1/chat/completions", json=body, headers={"x-twinfer-route": "disaggregated"}
    ) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            drawn = [choice for choice in chunk["choices"] if (choice.get("logprobs") or {}).get("content")]
            arrivals += [time.perf_counter() * 1e3] * len(drawn)
            last = chunk if chunk.get("usage") else last
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    journey = last["twinfer"]
    return Run(
        prompt_tokens=int(last["usage"]["prompt_tokens"]),
        transfer_bytes=int(journey["transfer_bytes"]),
        reserve_ms=journey["reserve_ms"],
        prefill_ms=journey["prefill_ms"],
        exposed_ms=journey["exposed_transfer_ms"],
        gap_ms=gaps[0],
        step_ms=statistics.median(gaps[1:]),
    )


def measure(url: str, model: str, num_tokens: int, repeats: int) -> list[Run]:
    """Prompts of about that many tokens, each different from its first word on, so that nothing is cached."""
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        stream(client, model, "warm up " * 20)
        per_word = stream(client, model, "x = 1\n" * 100).prompt_tokens / 100
        return [
            stream(client, model, f"{time.perf_counter_ns()}\n" + "x = 1\n" * int(num_tokens / per_word))
            for _ in range(repeats)
        ]


def median(runs: Sequence[Run]) -> Run:
    """The run with the median cost."""
    return sorted(runs, key=lambda run: run.cost_ms)[len(runs) // 2]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="'demo' or a directory")
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 1024, 4096, 16384], help="lengths of prompts")
    parser.add_argument("--repeats", type=int, default=5, help="requests of each length (default: 5)")
    parser.add_argument("--throttled", action="store_true", help="also on a link that takes half the prefill's time")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="passed on to twinfer serve")
    options = parser.parse_args()
    own = [options.model, *(part for setting in options.set for part in ("--set", setting))]
    print(f"{'tokens':>7}{'MB':>8}{'prefill':>10}{'reserve':>9}{'gap':>8}{'step':>8}{'cost':>8}{'step + 5':>10}  (ms)")
    measured: list[Run] = []
    with deployment(own) as (model, url):
        for num_tokens in options.tokens:
            run = median(measure(url, model, num_tokens, options.repeats))
            measured.append(run)
            figures = (run.reserve_ms, run.gap_ms, run.step_ms, run.cost_ms, run.step_ms + 5)
            columns = "".join(f"{figure:>{width}.1f}" for figure, width in zip(figures, (9, 8, 8, 8, 10), strict=True))
            print(f"{run.prompt_tokens:>7}{run.transfer_bytes / 1e6:>8.1f}{run.prefill_ms:>10.0f}{columns}", flush=True)
    if options.throttled:
        print(f"\n{'tokens':>7}{'MB/s':>8}{'transfer':>10}{'exposed':>9}{'hidden':>8}  (ms)")
        for fast in measured:
            speed = fast.transfer_bytes / 1e3 / (fast.prefill_ms / 2)
            with deployment([*own, "--set", f"link.throttle_mb_per_s={speed:.1f}"]) as (model, url):
                run = median(measure(url, model, fast.prompt_tokens, max(1, options.repeats // 2)))
            transfer_ms = run.transfer_bytes / 1e3 / speed
            hidden = 1 - run.exposed_ms / transfer_ms
            print(f"{run.prompt_tokens:>7}{speed:>8.1f}{transfer_ms:>10.0f}{run.exposed_ms:>9.1f}{hidden:>8.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
