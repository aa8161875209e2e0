"""Prefixes that the dispatcher has fetched before a prompt is computed."""

import msgspec
import pytest

from tests.fakes import a_request
from tests.gateway.scripted_cluster import CONFIG, GRANT, Cluster, collect, tokens
from twinfer.core.config import HandoffConfig
from twinfer.core.ids import WorkerId
from twinfer.core.messages import (
    Cancel,
    Done,
    Frame,
    Generate,
    Granted,
    Lend,
    Prefill,
    Reserve,
)
from twinfer.core.tokens import Timings


async def test_prefix_is_fetched_first(cluster: Cluster) -> None:
    """The decode worker lends what it has, the prompt follows; its time is told, and nobody listens afterwards."""
    request = a_request([1] * 300, 1)
    generation = cluster.dispatcher.start(request, None)
    wire_id = await cluster.d0.hears(Reserve)
    cluster.d0.say(Granted(wire_id, GRANT, 160))
    fetch = await cluster.p.hears(Reserve)
    cluster.p.say(Granted(fetch, GRANT, 16))
    assert fetch == await cluster.d0.hears(Lend)
    cluster.d0.say(Frame(done=(Done(fetch, Timings()),)))
    cluster.p.say(Frame(done=(Done(fetch, Timings(transfer_bytes=99)),)))
    assert wire_id == await cluster.p.hears(Prefill)
    cluster.p.say(Frame(tokens(wire_id, 0, 5, last=True), (Done(wire_id, Timings(cached_tokens=160)),)))
    assert await collect(generation) == [5]
    generation.close()
    assert generation.journey().fetch_ms > 0
    assert generation.journey().cached_tokens == 160
    assert 'twinfer_gateway_fetches_total{outcome="fetched"} 1.0' in await cluster.dispatcher.metrics()
    for worker in ("p", "d0", "d1"):
        assert cluster.fleet.link(WorkerId(worker)).listeners == {}


@pytest.mark.parametrize("who", ["p", "d0"])
async def test_worker_dies_in_a_fetch(cluster: Cluster, who: str) -> None:
    """Without the decode worker another one is asked, without the prefill worker a decode worker does it alone."""
    generation = cluster.dispatcher.start(a_request([1] * 300, 1), None)
    cluster.d0.say(Granted(await cluster.d0.hears(Reserve), GRANT, 160))
    cluster.p.say(Granted(await cluster.p.hears(Reserve), GRANT, 0))
    await cluster.d0.hears(Lend)
    (cluster.p if who == "p" else cluster.d0).die()
    if who == "p":
        await cluster.d0.hears(Cancel)
        await cluster.d0.hears(Cancel)
        wire_id = await cluster.d0.hears(Generate)
        cluster.d0.say(Frame(tokens(wire_id, 0, 5, last=True)))
    else:
        await cluster.p.hears(Cancel)
        await cluster.p.hears(Cancel)
        wire_id = await cluster.d1.hears(Reserve)
        cluster.d1.say(Granted(wire_id, GRANT, 0))
        assert wire_id == await cluster.p.hears(Prefill)
        cluster.p.say(Frame(tokens(wire_id, 0, 5, last=True)))
    assert await collect(generation) == [5]
    generation.close()
    for worker in ("p", "d0", "d1"):
        assert cluster.fleet.link(WorkerId(worker)).listeners == {}


async def test_fetch_that_hangs_is_done_without() -> None:
    """After its time the prompt is sent all the same."""
    cluster = Cluster(msgspec.structs.replace(CONFIG, handoff=HandoffConfig(lease_s=0.02, heartbeat_s=0.01)))
    await cluster.until(lambda: not cluster.fleet.missing())
    generation = cluster.dispatcher.start(a_request([1] * 300, 1), None)
    wire_id = await cluster.d0.hears(Reserve)
    cluster.d0.say(Granted(wire_id, GRANT, 160))
    fetch = await cluster.p.hears(Reserve)
    assert fetch == await cluster.p.hears(Cancel)
    assert wire_id == await cluster.p.hears(Prefill)
    assert fetch == await cluster.d0.hears(Cancel)
    generation.close()
    await cluster.fleet.close()
