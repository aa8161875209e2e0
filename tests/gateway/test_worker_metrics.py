"""The workers' reports as Prometheus text."""

from tests.fakes import MODEL, POOL
from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.ids import Epoch, WorkerId
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.engine.assemble import emulated_capabilities
from twinfer.gateway.worker_metrics import render, render_impostors


def test_handoffs_are_counted_by_transport():
    """Each transport that brought KV has its own series."""
    capabilities = emulated_capabilities(MODEL, POOL)
    identity = WorkerIdentity(WorkerId("d"), Epoch("e"), Role.DECODE, capabilities, "unix:/d")
    counts = {"shm": 3, "tcp+tls": 2}
    report = LoadReport(BlockCounts(8, 8, 0, 0), Counters(handoffs_in=5), handoffs_by_transport=counts)
    lines = render([(identity, report)]).splitlines()
    for transport, count in counts.items():
        labels = f'model="{MODEL.id}",role="decode",transport="{transport}",worker="d"'
        assert f"twinfer_worker_handoffs_by_transport_total{{{labels}}} {count}.0" in lines


def test_refused_grants_are_counted_by_reason():
    """Each reason for which a worker refused one has its own series."""
    capabilities = emulated_capabilities(MODEL, POOL)
    identity = WorkerIdentity(WorkerId("p"), Epoch("e"), Role.PREFILL, capabilities, "unix:/p")
    counts = {"forged": 3, "replayed": 2}
    report = LoadReport(BlockCounts(8, 8, 0, 0), Counters(), grants_refused=counts)
    lines = render([(identity, report)]).splitlines()
    for reason, count in counts.items():
        labels = f'model="{MODEL.id}",reason="{reason}",role="prefill",worker="p"'
        assert f"twinfer_worker_grants_refused_total{{{labels}}} {count}.0" in lines


def test_refused_peers_are_counted_by_reason():
    """Each reason for which a worker turned callers away has its own series."""
    capabilities = emulated_capabilities(MODEL, POOL)
    identity = WorkerIdentity(WorkerId("p"), Epoch("e"), Role.PREFILL, capabilities, "unix:/p")
    counts = {"certificate": 3, "name": 2}
    lines = render([(identity, LoadReport(BlockCounts(8, 8, 0, 0), Counters(), peers_refused=counts))]).splitlines()
    for reason, count in counts.items():
        labels = f'model="{MODEL.id}",reason="{reason}",role="prefill",worker="p"'
        assert f"twinfer_worker_peers_refused_total{{{labels}}} {count}.0" in lines


def test_impostors_are_counted_by_the_worker_that_was_dialled():
    """A name for each."""
    assert 'twinfer_gateway_impostors_total{worker="d"} 2.0' in render_impostors({"d": 2}).splitlines()
