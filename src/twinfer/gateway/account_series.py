"""Series of how calls were served and what they were charged, and of what is written about them."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from twinfer.core.request import GenerationRequest
from twinfer.gateway.batches import Tally


class AccountSeries:
    """A part of the gateway's own series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.throttled = Counter(
            "bedrock_invocation_throttles",
            "Calls refused for their tenant's quota",
            ("model_id", "operation"),
            registry=registry,
        )
        self._charged = Counter(
            "bedrock_estimated_tpm_quota_usage",
            "Tokens that counted against quotas, when settled",
            ("tenant", "model_id"),
            registry=registry,
        )
        self.downgrades = Counter(
            "twinfer_gateway_downgrades",
            "Calls not served as they asked: tier or latency mode",
            ("model_id", "reason"),
            registry=registry,
        )
        self.refused = Counter(
            "twinfer_gateway_refused",
            "Calls refused for want of capacity before anything was begun",
            ("tier", "reason"),
            registry=registry,
        )
        self.late = Counter(
            "twinfer_gateway_late_first_tokens",
            "Calls whose first token came later than their inference profile promises",
            ("profile",),
            registry=registry,
        )
        self._served = Counter(
            "twinfer_gateway_served",
            "Calls answered in full, by how they were served",
            ("model_id", "tier", "latency"),
            registry=registry,
        )
        self.usage = Tally(
            Counter("twinfer_usage_records", "Usage records by what became of them", ("outcome",), registry=registry),
            Gauge("twinfer_usage_records_waiting", "Usage records not yet in the database", registry=registry),
        )
        lines = "twinfer_invocation_log_lines"
        self.invocation_lines = Tally(
            Counter(lines, "Lines of the invocation log by what became of them", ("outcome",), registry=registry),
            Gauge(f"{lines}_waiting", "Lines not yet in the invocation log", registry=registry),
        )

    def charge(self, tenant: str, model: str, num_tokens: int) -> None:
        """A call's tokens count against its tenant's quota."""
        self._charged.labels(tenant, model).inc(num_tokens)

    def served(self, request: GenerationRequest) -> None:
        """A call was answered in full, as its requests say."""
        self._served.labels(request.model, request.tier.value, request.latency.value).inc()
