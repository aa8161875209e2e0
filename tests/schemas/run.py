"""Asks, and counts what came."""

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx

from tests.grammar.schemas import complaint, random_schema
from tests.schemas.doors import DOORS, Asked

UNSUPPORTED: tuple[dict[str, Any], ...] = (
    {"minimum": 1},
    {"maxLength": 3},
    {"pattern": "a"},
    {"oneOf": [{"type": "null"}]},
    {"not": {"type": "null"}},
    {"additionalProperties": {"type": "null"}},
    {"$ref": "https://example.com/schema"},
    {"minItems": 2},
)
SERVING = ("model.0.tool_format=hermes",)
"""What a deployment of the demo model needs, which was never taught to call tools."""


@dataclass(slots=True)
class Tally:
    """What became of the requests.

    Attributes:
        counts: by door and outcome: ``valid``, ``cut``, ``wrong``, ``refused``, ``not refused``.
        examples: what was wrong.
        routes: of the answers.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    routes: Counter[str] = field(default_factory=Counter)

    def add(self, door: str, outcome: str, example: str = "") -> None:
        """One more."""
        self.counts[door, outcome] += 1
        if example:
            self.examples.append(f"{door}: {example}")


async def ask_all(url: str, number: int, seed: int, max_tokens: int, abreast: int = 8) -> Tally:
    """Ask for answers to so many random schemas, and for some that are not supported, through the doors in turn."""
    tally = Tally()
    numbers = iter(range(number))
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:

        async def ask_on() -> None:
            for index in numbers:
                rng = Random(seed * 1_000_003 + index)
                door, schema = DOORS[index % len(DOORS)], random_schema(rng)
                route = ("aggregated", "disaggregated")[index // len(DOORS) % 2]
                await _ask(client, tally, door.__name__, door(schema, max_tokens, index), schema, route)

        await asyncio.gather(*(ask_on() for _ in range(abreast)))
        for door, wrong in itertools.product(DOORS, UNSUPPORTED):
            asked = door({"type": "object", "properties": {"a": wrong}}, max_tokens, 0)
            answer = await client.post(asked.path, json=asked.body)
            named = next(iter(wrong)) in answer.text and "#/properties/a" in answer.text
            outcome = "refused" if answer.status_code == 400 and named else "not refused"
            tally.add(door.__name__, outcome, answer.text[:200] if outcome != "refused" else "")
    return tally


async def _ask(client: httpx.AsyncClient, tally: Tally, door: str, asked: Asked, schema: Any, route: str) -> None:
    answer = await client.post(asked.path, json=asked.body, headers={"x-twinfer-route": route})
    if answer.status_code != 200:
        tally.add(door, "wrong", f"status {answer.status_code}: {answer.text[:300]} to {schema}")
        return
    tally.routes[answer.headers["x-twinfer-route"]] += 1
    text, cut = asked.read(answer.json())
    if cut:
        tally.add(door, "cut")
        return
    found = complaint(schema, text)
    tally.add(door, "wrong" if found else "valid", f"{found}: {text[:200]} to {schema}" if found else "")
