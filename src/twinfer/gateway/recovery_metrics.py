"""What a gateway did so that clients noticed nothing, or less waiting."""

from prometheus_client import CollectorRegistry, Counter, generate_latest


class RecoveryMetrics:
    """Counters of one gateway process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.replans = Counter(
            "twinfer_gateway_replans", "Requests planned again, by what happened", ["reason"], registry=self._registry
        )
        self.fetches = Counter(
            "twinfer_gateway_fetches",
            "Prefixes to be fetched from the decode worker, by what came of it",
            ["outcome"],
            registry=self._registry,
        )
        self.recovered = Counter(
            "twinfer_gateway_recovered_requests",
            "Requests answered in full although a worker failed them",
            registry=self._registry,
        )

    def render(self) -> str:
        """Prometheus text."""
        return generate_latest(self._registry).decode()
