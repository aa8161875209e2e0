"""Which way requests were sent, by which rule, and how well that was foreseen."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from twinfer.core.route import Route

RATIOS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0)


class RouteMetrics:
    """Counters of one gateway process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._routes = Counter(
            "twinfer_gateway_routes", "Routes chosen, by mode and rule", ["route", "rule"], registry=self._registry
        )
        self._errors = Histogram(
            "twinfer_gateway_ttft_over_predicted",
            "Time from the route to the first token, in shares of what was predicted",
            ["route"],
            buckets=RATIOS,
            registry=self._registry,
        )

    def chosen(self, route: Route, *, forced: bool) -> None:
        """A route was."""
        rule = "forced" if forced else "cost" if route.estimate is not None else "length"
        self._routes.labels(route.kind.value, rule).inc()

    def answered(self, route: Route, ttft_s: float) -> None:
        """Its first token came so long after."""
        if route.estimate is not None and route.estimate.ttft_s > 0:
            self._errors.labels(route.kind.value).observe(ttft_s / route.estimate.ttft_s)

    def render(self) -> str:
        """Prometheus text."""
        return generate_latest(self._registry).decode()
