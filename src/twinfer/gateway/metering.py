"""What the gateway counts about itself, under the names of Bedrock's own metrics where it has one."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from twinfer.gateway.account_series import AccountSeries
from twinfer.gateway.answers import Answer

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_PHASES = ("queue", "reserve", "fetch", "prefill", "exposed_transfer", "decode")


class Meter:
    """The gateway's own series, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        by_model = ("model_id", "operation")
        self.responses = Counter(
            "twinfer_gateway_responses", "HTTP responses by status", ("operation", "status"), registry=registry
        )
        self.in_work = Gauge("twinfer_gateway_in_work", "Calls being generated", registry=registry)
        self.cancelled = Counter(
            "twinfer_gateway_cancelled", "Calls whose client left before the end", ("operation",), registry=registry
        )
        self.broken = Counter(
            "twinfer_gateway_broken_streams", "Streams that failed after they began", ("operation",), registry=registry
        )
        self._invocations = Counter("bedrock_invocations", "Calls answered in full", by_model, registry=registry)
        self._latency = Histogram(
            "bedrock_invocation_latency_seconds", "Arrival to last token", by_model, registry=registry, buckets=_SECONDS
        )
        self._first_token = Histogram(
            "bedrock_time_to_first_token_seconds",
            "Arrival to first token",
            by_model,
            registry=registry,
            buckets=_SECONDS,
        )
        self._tokens = {
            name: Counter(f"bedrock_{name}_token_count", help_text, by_model, registry=registry)
            for name, help_text in (
                ("input", "Prompt tokens that were not cached"),
                ("cache_read_input", "Prompt tokens found in a prefix cache"),
                ("output", "Generated tokens"),
            )
        }
        self._phases = Histogram(
            "twinfer_phase_seconds",
            "Where an answer's time went",
            ("model_id", "route", "phase"),
            registry=registry,
            buckets=_SECONDS,
        )

        self.accounts = AccountSeries(registry)

    def first_token(self, model: str, operation: str, seconds: float) -> None:
        """A call's first token is there."""
        self._first_token.labels(model, operation).observe(seconds)

    def answered(self, model: str, operation: str, seconds: float) -> None:
        """A call was answered in full."""
        self._invocations.labels(model, operation).inc()
        self._latency.labels(model, operation).observe(seconds)

    def spent(self, model: str, operation: str, answer: Answer) -> None:
        """One complete answer: its tokens, and where its time went."""
        self._tokens["input"].labels(model, operation).inc(len(answer.request.prompt) - answer.num_cached)
        self._tokens["cache_read_input"].labels(model, operation).inc(answer.num_cached)
        self._tokens["output"].labels(model, operation).inc(answer.num_tokens)
        journey = answer.journey()
        for phase in _PHASES:
            seconds = getattr(journey, f"{phase}_ms") / 1000
            self._phases.labels(model, journey.route.kind.value, phase).observe(seconds)

    def text(self) -> str:
        """All series in Prometheus' text format."""
        return generate_latest(self._registry).decode()
