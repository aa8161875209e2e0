"""Ten thousand spoilt requests to every route of the gateway, in process.

    python -m tests.gateway.fuzz
    python -m tests.gateway.fuzz --first 4711 --requests 1     shows what request 4711 is and what became of it

A request's number decides all of it: operation, body, headers, in which parts they come, and what the engine says. None
may bring a 5xx, unless the engine failed; break off; hang; or leave something behind.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.gateway import templates
from tests.gateway.fuzz.run import Findings, Front, explore, held, make
from tests.gateway.house import checkpoint
from twinfer.core.config import ModelConfig
from twinfer.gateway.loading import Limits, load_model
from twinfer.gateway.models import ServedModel
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.gateway.text.formats.hermes import Hermes
from twinfer.gateway.text.manner import Manner

MAX_GROWTH_BYTES = 32 * 2**20
MAX_GROWTH_OBJECTS = 600


def calling_model(directory: Path) -> ServedModel:
    """A model without weights that answers to every name, thinks, and calls tools.

    Args:
        directory: empty; its checkpoint goes there.
    """
    config = ModelConfig(id="twinfer.tiny-v1:0", aliases=("*",), provider="Twinfer")
    loaded = load_model(config, checkpoint(directory), Limits(vocab_size=1000))
    template, manner = ChatTemplate(templates.HERMES, {}), Manner(Hermes(), "think")
    return replace(loaded, template=template, manner=manner, max_context_tokens=4000)


async def fuzz(model: ServedModel, first: int, num_requests: int) -> tuple[Findings, int, int]:
    """All findings, and by how much objects and bytes grew over the second half, when all that is kept is there."""
    front, half = Front(model), first + num_requests // 2
    findings = await explore(front, range(first, half))
    objects, size = held()
    later = await explore(front, range(half, first + num_requests))
    objects_after, size_after = held()
    both = Findings(
        findings.statuses + later.statuses,
        findings.wrong + later.wrong,
        max(findings.slowest_s, later.slowest_s),
    )
    return both, objects_after - objects, size_after - size


async def show(model: ServedModel, number: int) -> int:
    """One request and what became of it; the log, too."""
    logging.disable(logging.NOTSET)
    sent = make(Random(number))
    print(sent.method, sent.path[:500], sent.headers)
    print(sent.body[:2000])
    _, received = await Front(model).run(number)
    print(received.status, dict(received.headers))
    print(received.body[:2000])
    return 0


def main() -> int:
    """Fuzz, print, and judge."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gateway.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first request (default: 0)")
    parser.add_argument("--requests", type=int, default=10_000, help="how many (default: 10,000)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as directory:
        model = calling_model(Path(directory))
    if options.requests == 1:
        return asyncio.run(show(model, options.first))
    began = time.perf_counter()
    findings, objects, size = asyncio.run(fuzz(model, options.first, options.requests))
    statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(findings.statuses.items()))
    print(
        f"{options.requests:,} requests from number {options.first} in {time.perf_counter() - began:.0f} s: {statuses}"
    )
    print(f"the slowest, number {findings.slowest_s[1]}, took {findings.slowest_s[0] * 1e3:.0f} ms")
    print(f"growth over the second half: {objects:,} objects, {size / 2**20:.1f} MiB")
    for number, what in findings.wrong:
        print(f"request {number} went wrong: {what}\n  replay: make fuzz-gateway ARGS='--first {number} --requests 1'")
    leaks = objects > MAX_GROWTH_OBJECTS or size > MAX_GROWTH_BYTES
    return 1 if findings.wrong or leaks else 0


if __name__ == "__main__":
    sys.exit(main())
