"""The dispatcher over workers that say what a test tells them to: journeys, recovery, and nothing left behind."""

import asyncio

import msgspec
import pytest

from tests.fakes import MODEL, a_request
from tests.gateway.scripted_cluster import CONFIG, GRANT, LOAD, LONG, Cluster, FakeWorker, collect, tokens
from twinfer.core.capabilities import Role
from twinfer.core.clock import ManualClock
from twinfer.core.config import Config, HandoffConfig, RoutingConfig
from twinfer.core.cost import StepCost
from twinfer.core.errors import CapacityError, EngineFailure, Forbidden, ModelNotReady, TwinferError, WorkerLost
from twinfer.core.ids import Epoch, RequestId, WorkerId
from twinfer.core.messages import (
    Busy,
    Cancel,
    Done,
    Failed,
    FailureKind,
    Frame,
    Generate,
    Granted,
    Load,
    Prefill,
    Refused,
    Reserve,
    ToGateway,
)
from twinfer.core.route import RouteKind
from twinfer.core.service import Tier
from twinfer.core.tokens import Timings, Token
from twinfer.gateway.dispatch import FleetDispatcher
from twinfer.gateway.errors import InternalError
from twinfer.gateway.fleet import Fleet
from twinfer.handoff.gateway_side import GatewayState


async def test_disaggregated_journey(cluster: Cluster) -> None:
    """Reserve, prefill, tokens from both; the journey joins both workers' timings, and nobody listens afterwards."""
    generation = cluster.dispatcher.start(LONG, None)
    wire_id = await cluster.d0.hears(Reserve)
    cluster.d0.say(Granted(wire_id, GRANT, 0))
    assert wire_id == await cluster.p.hears(Prefill)
    done = Done(wire_id, Timings(queue_s=0.25, prefill_s=0.5, cached_tokens=16))
    cluster.p.say(Frame(tokens(wire_id, 0, 5), (done,)))
    cluster.d0.say(Frame(tokens(wire_id, 0, 5)))
    cluster.d0.say(Frame(tokens(wire_id, 1, 6, 7, last=True), (Done(wire_id, Timings(transfer_bytes=99)),)))
    assert await collect(generation) == [5, 6, 7]
    journey = generation.journey()
    assert (journey.route.kind, journey.queue_ms, journey.prefill_ms) == (RouteKind.DISAGGREGATED, 250.0, 500.0)
    assert (journey.cached_tokens, journey.transfer_bytes) == (16, 99)
    assert journey.reserve_ms >= 0
    for worker in ("p", "d0", "d1"):
        assert cluster.fleet.link(WorkerId(worker)).listeners == {}
    generation.close()


async def test_what_is_foreseen_counts_only_what_comes_before(cluster: Cluster) -> None:
    """Flex prompts on every worker, sent a moment ago or to be sent, delay flex; better tiers at most go elsewhere."""
    urgent, flex = (msgspec.structs.replace(LONG, tier=tier) for tier in (Tier.PRIORITY, Tier.FLEX))

    def foreseen() -> list[float | None]:
        return [cluster.dispatcher.foresee(request, None) for request in (urgent, flex)]

    assert [None, None] == foreseen()
    for worker in (cluster.p, cluster.d0, cluster.d1):
        worker.say(Load(msgspec.structs.replace(LOAD, cost=StepCost(0.001, 0.001, 0.0, 0.0, 0.0))))
    await cluster.until(lambda: None not in foreseen())
    before = foreseen()
    long = msgspec.structs.replace(a_request([1] * 3000, 3), tier=Tier.FLEX)
    routes = (RouteKind.AGGREGATED, RouteKind.AGGREGATED, RouteKind.DISAGGREGATED)
    generations = [cluster.dispatcher.start(long, route) for route in routes]
    after = foreseen()
    assert pytest.approx(before[0], abs=0.001) == after[0]
    assert pytest.approx(3.0, abs=0.1) == after[1] - before[1]
    for generation in generations:
        generation.close()


async def test_decode_worker_dies_in_mid_stream(cluster: Cluster) -> None:
    """The stream goes on elsewhere with the tokens already sent; late words of the old attempt are nobody's."""
    generation = cluster.dispatcher.start(LONG, RouteKind.AGGREGATED)
    first = await cluster.d0.hears(Generate)
    cluster.d0.say(Frame(tokens(first, 0, 5)))
    await cluster.until(lambda: generation._machine.journal == [5])
    cluster.d0.die()
    message = await cluster.d1.heard.get()
    assert isinstance(message, Generate)
    assert message.emitted == (5,)
    cluster.d1.say(Frame(tokens(first, 1, 99)))
    cluster.d1.say(Frame(tokens(message.request.request_id, 1, 6, 7, last=True)))
    assert await collect(generation) == [5, 6, 7]


async def wearing(worker: FakeWorker, weights: str, cluster: Cluster) -> None:
    """Start a worker again with other weights."""
    capabilities = worker.identity.capabilities
    fingerprint = msgspec.structs.replace(capabilities.fingerprint, weights=weights)
    capabilities = msgspec.structs.replace(capabilities, fingerprint=fingerprint)
    worker.identity = msgspec.structs.replace(worker.identity, capabilities=capabilities, epoch=Epoch(weights))
    worker.die()
    await cluster.until(lambda: bool(cluster.fleet.missing()))
    worker.down = False
    await cluster.until(lambda: not cluster.fleet.missing())


async def test_an_answer_waits_for_the_weights_it_began_with(cluster: Cluster) -> None:
    """Those that another worker has do not continue it, until one with its own is there again."""
    await wearing(cluster.d1, "new", cluster)
    cluster.d1.say(Load(msgspec.structs.replace(LOAD, draining=True)))
    await cluster.until(lambda: len(cluster.fleet.snapshot().workers) == 2)
    generation = cluster.dispatcher.start(LONG, RouteKind.AGGREGATED)
    first = await cluster.d0.hears(Generate)
    cluster.d1.say(Load(LOAD))
    cluster.d0.say(Frame(tokens(first, 0, 5)))
    await cluster.until(lambda: generation._machine.journal == [5])
    cluster.d0.die()
    await cluster.until(lambda: cluster.fleet.missing() == ["d0"])
    assert cluster.d1.heard.empty()
    cluster.d0.down = False
    message = await cluster.d0.heard.get()
    assert isinstance(message, Generate)
    cluster.d0.say(Frame(tokens(message.request.request_id, 1, 6, 7, last=True)))
    assert await collect(generation) == [5, 6, 7]
    assert cluster.d1.heard.empty()


async def test_an_answer_whose_weights_are_gone_fails() -> None:
    """Rather than to go on with others; one that has no token yet begins again with those that are there."""
    cluster = Cluster(msgspec.structs.replace(CONFIG, handoff=HandoffConfig(max_busy_s=0.0)))
    await cluster.until(lambda: not cluster.fleet.missing())
    begun, waiting = (cluster.dispatcher.start(LONG, RouteKind.AGGREGATED) for _ in range(2))
    first, other = await cluster.d0.hears(Generate), await cluster.d1.hears(Generate)
    cluster.d0.say(Frame(tokens(first, 0, 5)))
    await cluster.until(lambda: begun._machine.journal == [5])
    await wearing(cluster.d1, "new", cluster)
    again = await cluster.d0.hears(Generate)
    assert again != other
    cluster.d0.die()
    with pytest.raises(WorkerLost, match="d0 was lost"):
        await collect(begun)
    final = await cluster.d1.hears(Generate)
    cluster.d1.say(Frame(tokens(final, 0, 1, 2, 3, last=True)))
    assert await collect(waiting) == [1, 2, 3]
    assert cluster.d1.heard.empty()
    await cluster.fleet.close()


async def test_client_that_leaves_cancels_both_legs(cluster: Cluster) -> None:
    """Closing tells both workers, and stops listening."""
    generation = cluster.dispatcher.start(LONG, None)
    wire_id = await cluster.d0.hears(Reserve)
    cluster.d0.say(Granted(wire_id, GRANT, 0))
    await cluster.p.hears(Prefill)
    generation.close()
    assert (wire_id, wire_id) == (await cluster.p.hears(Cancel), await cluster.d0.hears(Cancel))
    assert cluster.fleet.link(WorkerId("p")).listeners == {}
    generation.close()


async def test_failures_reach_the_client_after_bounded_attempts(cluster: Cluster) -> None:
    """The error is that of the leg that failed first."""
    generation = cluster.dispatcher.start(LONG, RouteKind.AGGREGATED)
    wire_id = await cluster.d0.hears(Generate)
    cluster.d0.say(Refused(wire_id, "not mine"))
    wire_id = await cluster.d1.hears(Generate)
    cluster.d1.say(Failed(wire_id, FailureKind.ENGINE, "second"))
    wire_id = await cluster.d0.hears(Generate)
    cluster.d0.say(Failed(wire_id, FailureKind.ENGINE, "third"))
    with pytest.raises(EngineFailure, match="refused the request: not mine"):
        await collect(generation)


async def test_a_pair_that_refused_is_not_asked_again(cluster: Cluster) -> None:
    """The request is answered another way; later ones do not try; a worker that started anew may fit."""
    for attempt in range(2):
        collected = asyncio.create_task(collect(cluster.dispatcher.start(LONG, None)))
        if attempt == 0:
            refused = await cluster.d0.hears(Reserve)
            cluster.d0.say(Refused(refused, "incompatible: other heads", incompatible=True))
        wire_id = await cluster.d0.hears(Generate)
        cluster.d0.say(Frame(tokens(wire_id, 0, 1, 2, 3, last=True), (Done(wire_id, Timings()),)))
        assert await collected == [1, 2, 3]
    assert cluster.p.heard.empty()
    assert cluster.fleet.snapshot().mismatched == {(WorkerId("p"), WorkerId("d0"))}
    cluster.p.identity = msgspec.structs.replace(cluster.p.identity, epoch=Epoch("later"))
    cluster.p.die()
    await cluster.until(lambda: bool(cluster.fleet.missing()))
    cluster.p.down = False
    await cluster.until(lambda: not cluster.fleet.missing())
    assert cluster.fleet.snapshot().mismatched == frozenset()


async def test_busy_workers_are_asked_again(cluster: Cluster) -> None:
    """After the pause they ask for, with a new attempt."""
    generation = cluster.dispatcher.start(LONG, None)
    wire_id = await cluster.d0.hears(Reserve)
    cluster.d0.say(Busy(wire_id, 0.001))
    await cluster.until(lambda: generation._machine.state is GatewayState.RECOVERING)
    assert cluster.fleet.link(WorkerId("d0")).listeners == {}
    again = await cluster.d0.hears(Reserve)
    assert again != wire_id
    generation.close()


async def test_a_prompt_counts_on_its_prefill_worker_from_the_plan_on(cluster: Cluster) -> None:
    """Before the grant, once; after it, once; and not at all when the plan came to nothing."""

    def on_p() -> tuple[int, int]:
        state = cluster.fleet.link(WorkerId("p")).state(cluster.fleet.book, 0.0)
        assert state is not None
        return (state.in_flight, state.in_flight_tokens)

    generation = cluster.dispatcher.start(LONG, None)
    assert on_p() == (1, 100)
    cluster.d0.say(Busy(await cluster.d0.hears(Reserve), 0.001))
    await cluster.until(lambda: generation._machine.state is GatewayState.RECOVERING)
    assert on_p() == (0, 0)
    wire_id = await cluster.d0.hears(Reserve)
    assert on_p() == (1, 100)
    cluster.d0.say(Granted(wire_id, GRANT, 0))
    await cluster.p.hears(Prefill)
    assert on_p() == (1, 100)
    generation.close()
    assert on_p() == (0, 0)


async def test_nobody_there() -> None:
    """Without a decode worker the answer is that there is no capacity, and readiness says what is missing."""
    cluster = Cluster(msgspec.structs.replace(CONFIG, handoff=HandoffConfig(max_busy_s=0.0)))
    await cluster.until(lambda: not cluster.fleet.missing())
    assert cluster.dispatcher.unready() is None
    cluster.d0.die()
    cluster.d1.die()
    await cluster.until(lambda: len(cluster.fleet.missing()) == 2)
    assert "waiting for: d0, d1" in str(cluster.dispatcher.unready())
    with pytest.raises(CapacityError, match="no decode worker"):
        await collect(cluster.dispatcher.start(LONG, None))
    await cluster.fleet.close()


async def test_no_wait_for_workers_that_nobody_configured() -> None:
    """All are there, and none is what was insisted on."""
    cluster = Cluster(CONFIG)
    cluster.p.identity = msgspec.structs.replace(cluster.p.identity, role=Role.DECODE)
    await cluster.until(lambda: not cluster.fleet.missing())
    with pytest.raises(CapacityError, match="no prefill worker"):
        await collect(cluster.dispatcher.start(LONG, RouteKind.DISAGGREGATED))
    await cluster.fleet.close()


@pytest.mark.parametrize("back", [False, True], ids=["gone", "started again"])
async def test_a_source_that_died_before_its_grant_came_costs_no_attempt(back: bool) -> None:
    """It is not asked, whether it is gone or another start of it is there: the request is planned again at once."""
    cluster = Cluster(msgspec.structs.replace(CONFIG, handoff=HandoffConfig(max_attempts=1)))
    await cluster.until(lambda: not cluster.fleet.missing())
    generation = cluster.dispatcher.start(LONG, None)
    wire_id = await cluster.d0.hears(Reserve)
    cluster.p.die()
    await cluster.until(lambda: bool(cluster.fleet.missing()))
    if back:
        cluster.p.identity = msgspec.structs.replace(cluster.p.identity, epoch=Epoch("later"))
        cluster.p.down = False
        await cluster.until(lambda: not cluster.fleet.missing())
    cluster.d0.say(Granted(wire_id, GRANT, 0))
    assert wire_id == await cluster.d0.hears(Cancel)
    again = await cluster.d0.hears(Reserve if back else Generate)
    assert cluster.p.heard.empty()
    cluster.d0.say(Frame(tokens(again, 0, 1, 2, 3, last=True), (Done(again, Timings()),)))
    assert await collect(generation) == [1, 2, 3]
    await cluster.fleet.close()


async def test_a_source_that_lets_go_meanwhile_is_planned_without_once() -> None:
    """While the KV it kept waits for another decode worker: there is one next plan, not two."""
    cluster = Cluster(msgspec.structs.replace(CONFIG, handoff=HandoffConfig(max_attempts=2)))
    await cluster.until(lambda: not cluster.fleet.missing())
    generation = cluster.dispatcher.start(LONG, None)
    wire_id = await cluster.d0.hears(Reserve)
    cluster.d0.say(Granted(wire_id, GRANT, 0))
    await cluster.p.hears(Prefill)
    cluster.d1.die()
    cluster.d0.die()
    await cluster.until(lambda: generation._machine.state is GatewayState.RECOVERING)
    cluster.p.say(Failed(wire_id, FailureKind.HANDOFF, "the decode worker gave up: unknown"))
    await cluster.until(lambda: not generation._machine.legs)
    cluster.d0.down = False
    again = await cluster.d0.hears(Generate)
    cluster.d0.say(Frame(tokens(again, 0, 1, 2, 3, last=True), (Done(again, Timings()),)))
    assert await collect(generation) == [1, 2, 3]
    assert cluster.d0.heard.empty()
    generation.close()
    await cluster.fleet.close()


@pytest.mark.parametrize("restarted", [False, True], ids=["same start", "another start"])
async def test_kept_kv_goes_to_no_start_of_a_worker_that_ended_its_handoff(restarted: bool) -> None:
    """A decode worker whose stream broke, but which lives, has ended the handoff: it computes the prompt itself."""
    cluster = Cluster(CONFIG)
    await cluster.until(lambda: not cluster.fleet.missing())
    generation = cluster.dispatcher.start(LONG, None)
    wire_id = await cluster.d0.hears(Reserve)
    cluster.d0.say(Granted(wire_id, GRANT, 0))
    await cluster.p.hears(Prefill)
    cluster.d1.die()
    cluster.d0.die()
    await cluster.until(lambda: generation._machine.state is GatewayState.RECOVERING)
    if restarted:
        cluster.d0.identity = msgspec.structs.replace(cluster.d0.identity, epoch=Epoch("later"))
    cluster.d0.down = False
    again = await cluster.d0.hears(Reserve if restarted else Generate)
    assert (again == wire_id) is restarted
    generation.close()
    await cluster.fleet.close()


async def test_a_broken_stream_is_not_planned_on(cluster: Cluster) -> None:
    """Even before anybody has noticed by reading from it."""
    cluster.d0.is_over = True
    assert [state.identity.worker for state in cluster.fleet.snapshot().workers] == ["p", "d1"]


class Stumbling:
    """A listener with a bug: whatever it is told, it cannot take in."""

    def __init__(self) -> None:
        self.error: TwinferError | None = None

    def hear(self, worker: WorkerId, message: ToGateway) -> None:
        raise KeyError(worker)

    def hear_tokens(self, worker: WorkerId, tokens: tuple[Token, ...], timings: Timings | None) -> None:
        raise KeyError(worker)

    def lost(self, worker: WorkerId) -> None:
        raise KeyError(worker)

    def fail(self, error: TwinferError) -> None:
        self.error = error


async def test_a_bug_ends_the_request_that_ran_into_it_and_no_other(cluster: Cluster) -> None:
    """It is told so; those that come after it on the same worker hear what they should, be it that the worker died."""
    generation = cluster.dispatcher.start(a_request([1, 2], 3), RouteKind.AGGREGATED)
    worker, other = cluster.d0, cluster.d1
    if generation.route.decode == other.identity.worker:
        worker, other = other, worker
    stumbling = [Stumbling() for _ in range(3)]
    named = {RequestId(f"r{number}"): (listener, 0) for number, listener in enumerate(stumbling)}
    listeners = cluster.fleet.link(worker.identity.worker).listeners
    whole = {**named, **listeners}  # those with bugs come first
    listeners.clear()
    listeners.update(whole)
    wire_id = await worker.hears(Generate)
    worker.say(Busy(RequestId("r0"), 0.0), Frame(tokens(RequestId("r1"), 0, 7) + tokens(wire_id, 0, 7), ()))
    await cluster.until(lambda: len(generation.arrivals.take()) == 1)
    assert [str(listener.error).partition(" in ")[0] for listener in stumbling] == ["A bug", "A bug", "None"]
    worker.die()
    await other.hears(Generate)
    assert isinstance(stumbling[2].error, InternalError)
    generation.close()


async def test_a_worker_is_dialled_again_whatever_went_wrong(caplog: pytest.LogCaptureFixture) -> None:
    """Before there is a stream, too, and with what is no error of ours."""
    worker, errors = FakeWorker("d0", Role.DECODE), [WorkerLost("gone"), KeyError("a bug")]
    dial = worker.gateway_stream

    def stumble() -> FakeWorker:
        if errors:
            raise errors.pop(0)
        return dial()

    worker.gateway_stream = stumble  # type: ignore[method-assign]
    fleet = Fleet({worker.identity.worker: "unix:/d0"}, lambda address: worker)
    async with asyncio.timeout(30):
        while fleet.missing():
            await asyncio.sleep(0.01)
    assert "a bug in the gateway broke the stream to unix:/d0, which is dialled again" in caplog.text
    await fleet.close()


async def test_workers_that_lost_each_other_are_kept_apart() -> None:
    """For as long as the fleet is told, and only while neither is another incarnation."""
    clock = ManualClock()
    p, d = FakeWorker("p", Role.PREFILL), FakeWorker("d", Role.DECODE)
    workers = {worker.identity.worker: worker for worker in (p, d)}
    fleet = Fleet({name: name for name in workers}, lambda address: workers[WorkerId(address)], 10.0, clock)
    while fleet.missing():
        await asyncio.sleep(0)
    generation = FleetDispatcher(fleet, CONFIG).start(LONG, None)
    wire_id = await d.hears(Reserve)
    d.say(Granted(wire_id, GRANT, 0))
    await p.hears(Prefill)
    d.say(Failed(wire_id, FailureKind.UNREACHABLE, "lost: the source went away"))
    assert wire_id != await d.hears(Generate)
    assert fleet.snapshot().parted == {(WorkerId("p"), WorkerId("d"))}
    clock.advance(10.0)
    assert fleet.snapshot().parted == frozenset()
    generation.close()
    await fleet.close()


async def test_a_worker_that_is_another_one_is_not_spoken_to(caplog: pytest.LogCaptureFixture) -> None:
    """What answers at an address under another name gets no request, is counted and logged, and is dialled again."""
    clock, impostor = ManualClock(), FakeWorker("d1", Role.DECODE)
    name = WorkerId("d0")
    fleet = Fleet({name: "unix:/d0"}, lambda address: impostor, 10.0, clock)
    while not fleet.impostors.counts():
        await asyncio.sleep(0)
    assert (fleet.missing(), fleet.snapshot().workers, impostor.heard.qsize()) == ([name], (), 0)
    assert fleet.impostors.counts() == {"d0": 1}
    while "no worker at unix:/d0: it says that it is d1, and d0 is expected there" not in caplog.text:
        await asyncio.sleep(0)
    impostor.identity = msgspec.structs.replace(impostor.identity, worker=name)
    while fleet.missing():
        await asyncio.sleep(0.01)
    await fleet.close()


async def test_a_model_is_not_ready_until_somebody_can_answer_for_it() -> None:
    """Clients are told so rather than that there is no room: they wait longer, and it is no failure of ours."""
    cluster = Cluster(CONFIG)
    try:
        with pytest.raises(ModelNotReady, match="is being loaded") as caught:
            cluster.dispatcher.start(LONG, None)
        assert caught.value.retry_after_s > 1
        await cluster.until(lambda: not cluster.fleet.missing())
        generation = cluster.dispatcher.start(LONG, None)
        generation.close()
    finally:
        await cluster.fleet.close()


async def test_operator_may_forbid_forcing() -> None:
    """Then the header is refused, whatever it asks for."""
    cluster = Cluster(Config(model=CONFIG.model, routing=RoutingConfig(allow_forced=False)))
    with pytest.raises(Forbidden, match="does not let clients choose"):
        cluster.dispatcher.start(LONG, RouteKind.AGGREGATED)
    await cluster.fleet.close()


async def test_metrics_carry_every_worker(cluster: Cluster) -> None:
    """One series a worker, labelled with its role and model."""
    text = await cluster.dispatcher.metrics()
    for worker, role in (("p", "prefill"), ("d0", "decode"), ("d1", "decode")):
        labels = f'model="{MODEL.id}",role="{role}",worker="{worker}"'
        assert f"twinfer_worker_prefill_tokens_total{{{labels}}} 7.0" in text
        assert (
            f'twinfer_worker_kv_blocks{{model="{MODEL.id}",role="{role}",state="free",worker="{worker}"}} 8.0' in text
        )
