"""A scrape of ``/metrics`` as plain numbers."""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Scrape:
    """Series of the workers at one moment.

    Attributes:
        values: by series without its prefix (``kv_blocks``, ``decode_tokens_total``), worker and state (or "").
        roles: of the workers that answered, by name.
    """

    values: dict[tuple[str, str, str], float]
    roles: dict[str, str]

    def of(self, worker: str, name: str, state: str = "") -> float:
        """One value; a state that is not there counts as 0."""
        return self.values.get((name, worker, state), 0.0)

    def states(self, name: str) -> set[str]:
        """The states in which some worker counts something."""
        return {state for (series, _, state), value in self.values.items() if series == name and value}

    def unrest(self) -> dict[str, float]:
        """Everything that is not zero although nothing is going on; blocks that are in no state count too."""
        found = {}
        for worker in self.roles:
            blocks = {state: self.of(worker, "kv_blocks", state) for state in ("free", "cached", "total")}
            found[f"{worker} missing blocks"] = blocks["total"] - blocks["free"] - blocks["cached"]
            for state in ("live", "promised", "quarantined"):
                found[f"{worker} {state}"] = self.of(worker, "kv_blocks", state)
            for name in ("running", "waiting", "waiting_tokens"):
                found[f"{worker} {name}"] = self.of(worker, name)
            found[f"{worker} unhealthy"] = 1.0 - self.of(worker, "healthy")
        for (name, worker, state), value in self.values.items():
            if name == "handoffs_open":
                found[f"{worker} {state}"] = value
        return {name: value for name, value in found.items() if value}


def read_scrape(text: str) -> Scrape:
    """Parse Prometheus' text format."""
    values: dict[tuple[str, str, str], float] = {}
    roles: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if worker := sample.labels.get("worker"):
                name = sample.name.removeprefix("twinfer_worker_")
                values[name, worker, sample.labels.get("state", "")] = sample.value
                roles[worker] = sample.labels["role"]
    return Scrape(values, roles)
