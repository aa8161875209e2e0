"""Looks at the deployment from outside: is it ready, who is there, and does every KV block have a place."""

from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families

POLL_S = 0.1
ANSWER_S = 5.0
"""A gateway that takes longer to answer a probe is asked again."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """``/metrics`` of one moment.

    Attributes:
        blocks: of each worker that answered, by state; ``total`` among them.
        busy: of each worker, all that is in work: sequences, and handoffs by state.
        recovered: requests that the gateway answered in full although a worker failed them, since its start.
        silence_s: of each worker, since when the most silent peer of one of its handoffs was not heard of.
    """

    blocks: dict[str, dict[str, int]]
    busy: dict[str, dict[str, int]]
    recovered: int
    silence_s: dict[str, float] = field(default_factory=dict)

    def unplaced(self, worker: str) -> int:
        """Blocks of a worker that are neither free nor cached nor live."""
        states = self.blocks[worker]
        return states["total"] - states["free"] - states["cached"] - states["live"]

    def unrest(self, worker: str) -> dict[str, int]:
        """All that a worker holds although nothing is asked of it; empty when there is nothing."""
        held = {state: self.blocks[worker].get(state, 0) for state in ("live", "promised", "quarantined")}
        everything = held | self.busy.get(worker, {}) | {"blocks in no state": self.unplaced(worker)}
        return {what: number for what, number in everything.items() if number}


def read_scrape(text: str) -> Scrape:
    """Parse Prometheus' text format."""
    scrape = Scrape({}, {}, 0)
    recovered = 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            worker, value = sample.labels.get("worker", ""), int(sample.value)
            if sample.name == "twinfer_worker_kv_blocks":
                scrape.blocks.setdefault(worker, {})[sample.labels["state"]] = value
            elif sample.name == "twinfer_worker_handoffs_open":
                scrape.busy.setdefault(worker, {})[sample.labels["state"]] = value
            elif sample.name in ("twinfer_worker_running", "twinfer_worker_waiting"):
                scrape.busy.setdefault(worker, {})[sample.name.removeprefix("twinfer_worker_")] = value
            elif sample.name == "twinfer_worker_longest_silence_seconds":
                scrape.silence_s[worker] = sample.value
            elif sample.name == "twinfer_gateway_recovered_requests_total":
                recovered = value
    return Scrape(scrape.blocks, scrape.busy, recovered, scrape.silence_s)


@dataclass(slots=True)
class Accounts:
    """Workers that have to have something in order by a certain moment.

    Attributes:
        open: those not yet seen in order.
        due: the moment; what a scrape begun later finds is a fault.
    """

    open: set[str]
    due: float

    def look(self, scrape: Scrape, asked: float, disorder: Callable[[str], object]) -> dict[str, object]:
        """Close the accounts that are in order or overdue; returns the disorder of the overdue ones.

        Args:
            scrape: of now; workers that are not in it are asked again.
            asked: when the scrape began.
            disorder: of a worker, as the scrape shows it; nothing, if in order.
        """
        overdue, found = asked > self.due, {worker: disorder(worker) for worker in self.open & set(scrape.blocks)}
        self.open -= {worker for worker, what in found.items() if overdue or not what}
        return {worker: what for worker, what in sorted(found.items()) if overdue and what}


class Watch:
    """Asks the gateway."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.AsyncClient(base_url=url, timeout=ANSWER_S, limits=limits, trust_env=False)

    async def unready(self) -> str:
        """Why no requests can be served; empty when they can."""
        try:
            response = await self._client.get("/readyz")
        except httpx.TransportError as error:
            return f"the gateway does not answer ({type(error).__name__})"
        return "" if response.status_code == httpx.codes.OK else response.text.strip()

    async def scrape(self) -> Scrape | None:
        """The metrics; ``None`` while the gateway does not answer."""
        try:
            response = await self._client.get("/metrics")
        except httpx.TransportError:
            return None
        return read_scrape(response.text) if response.status_code == httpx.codes.OK else None

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()
