"""The workers' reports as Prometheus text, labelled with worker, role and model.

Rendered from what each worker answers at scrape time, so a scrape shows this moment and not the last report.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from twinfer.core.capabilities import WorkerIdentity
from twinfer.core.load import LoadReport

LABELS = ("worker", "role", "model")
COUNTER_HELP = {
    "prefill_tokens": "Prompt positions computed",
    "cached_tokens": "Prompt positions found in the prefix cache",
    "decode_tokens": "Output tokens drawn by decode steps",
    "steps": "Forward passes",
    "preemptions": "Sequences that gave up their blocks for others",
    "requests": "Sequences accepted",
    "failures": "Sequences that failed",
    "guessed_tokens": "Output tokens computed before it was known whether they would be drawn",
    "right_guesses": "Guessed tokens that were drawn",
    "handoffs_out": "Handoffs committed by the sink",
    "handoffs_in": "Handoffs committed here",
    "handoffs_again": "Handoffs granted to another sink with the KV already computed",
    "handoffs_aborted": "Handoffs given up",
    "handoffs_expired": "Handoffs whose lease ran out",
    "pairs_refused": "Handoffs refused because the source's KV cannot be read",
    "integrity_failures": "Chunks whose digest did not match",
    "resends": "Chunks asked for again",
    "fetches_in": "Prefixes fetched from other workers",
    "fetches_out": "Prefixes that other workers fetched",
    "fetched_tokens": "Prompt positions in fetched prefixes",
    "kv_bytes_in": "KV bytes received",
    "kv_bytes_out": "KV bytes offered",
    "host_tokens": "Prompt positions whose KV came back from the host tier",
    "host_saved_blocks": "KV blocks copied to the host tier",
    "host_evicted_blocks": "KV blocks that gave way in the host tier",
    "host_bad_blocks": "KV blocks of the host tier whose digest had changed",
}

GAUGE_HELP = {
    "running": "Sequences in steps",
    "waiting": "Sequences in the queue",
    "waiting_tokens": "Prompt positions in the queue",
    "oldest_held_seconds": "Age of the oldest KV held for a handoff",
    "longest_silence_seconds": "Since when the most silent peer of an open handoff was not heard of",
    "step_seconds": "Moving average of the time of a step",
    "healthy": "1 when the worker can compute and reclaim",
}

Report = tuple[WorkerIdentity, LoadReport]


def render(reports: Sequence[Report]) -> str:
    """Prometheus text for all workers that answered."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(reports))
    return generate_latest(registry).decode()


def render_impostors(counts: Mapping[str, int]) -> str:
    """Prometheus text of how often another worker answered in the place of each."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Impostors(counts))
    return generate_latest(registry).decode()


class _Impostors(Collector):
    """A collector over counts that are known already."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """The one series."""
        text = "Connections given up because another worker answered, by the one that was dialled"
        counter = CounterMetricFamily("twinfer_gateway_impostors", text, labels=("worker",))
        for worker, count in self._counts.items():
            counter.add_metric((worker,), count)
        yield counter


class _Snapshot(Collector):
    """A collector over values that are known already."""

    def __init__(self, reports: Sequence[Report]) -> None:
        self._reports = reports

    def collect(self) -> Iterable[Metric]:
        """All series."""
        for name, text in COUNTER_HELP.items():
            counter = CounterMetricFamily(f"twinfer_worker_{name}", text, labels=LABELS)
            for identity, load in self._reports:
                counter.add_metric(_labels(identity), getattr(load.counters, name))
            yield counter
        for name, text in GAUGE_HELP.items():
            gauge = GaugeMetricFamily(f"twinfer_worker_{name}", text, labels=LABELS)
            for identity, load in self._reports:
                gauge.add_metric(_labels(identity), float(getattr(load, name.replace("seconds", "s"))))
            yield gauge
        yield self._counts_by(
            "transport",
            "handoffs_by_transport",
            "Handoffs and fetches committed here",
            lambda load: load.handoffs_by_transport,
        )
        yield self._counts_by("reason", "grants_refused", "Grants refused", lambda load: load.grants_refused)
        yield self._counts_by("reason", "peers_refused", "Callers turned away", lambda load: load.peers_refused)
        yield self._by_state("kv_blocks", "KV blocks by state", lambda load: msgspec.structs.asdict(load.blocks))
        yield self._by_state("host_blocks", "Slots of the host tier", lambda load: msgspec.structs.asdict(load.host))
        yield self._by_state("handoffs_open", "Open handoffs by side and state", lambda load: load.handoffs)

    def _counts_by(self, label: str, name: str, text: str, values: Callable[[LoadReport], Mapping[str, int]]) -> Metric:
        counter = CounterMetricFamily(f"twinfer_worker_{name}", f"{text} by {label}", labels=(*LABELS, label))
        for identity, load in self._reports:
            for what, value in values(load).items():
                counter.add_metric((*_labels(identity), what), value)
        return counter

    def _by_state(self, name: str, text: str, values: Callable[[LoadReport], Mapping[str, int]]) -> Metric:
        gauge = GaugeMetricFamily(f"twinfer_worker_{name}", text, labels=(*LABELS, "state"))
        for identity, load in self._reports:
            for state, value in values(load).items():
                gauge.add_metric((*_labels(identity), state), value)
        return gauge


def _labels(identity: WorkerIdentity) -> tuple[str, str, str]:
    return (identity.worker, identity.role.value, identity.capabilities.model)
