"""What is held ends by itself, whatever else a worker is busy with (rule R4)."""

import asyncio

import msgspec
import pytest

from tests.fakes import MODEL, a_request, expected_output
from tests.worker.hand_source import hand_source
from tests.worker.workplace import HANDOFF, SMALL, Caller, Station, calling, station
from twinfer.core.capabilities import Role
from twinfer.core.ids import Epoch, HandoffId, RequestId, WorkerId
from twinfer.core.messages import Busy, Cancel, Failed, FailureKind, Generate, Granted, Prefill, Reserve
from twinfer.core.service import Tier
from twinfer.engine.assemble import emulated_capabilities
from twinfer.worker.sink_desk import SinkDesk

PROMPT = list(range(1, 31))
NUM_OUTPUT = 5
REQUEST = a_request(PROMPT, NUM_OUTPUT)
CAPABILITIES = emulated_capabilities(MODEL, SMALL)
SHORT = msgspec.structs.replace(HANDOFF, lease_s=1.5)
"""A lease whose end is waited for."""


def reserve(name: str, source: Station | None = None, num_tokens: int = 30, tier: Tier = Tier.DEFAULT) -> Reserve:
    """A reservation; without a source, for one that will never come."""
    request = msgspec.structs.replace(a_request(list(range(100, 100 + num_tokens)), NUM_OUTPUT, name), tier=tier)
    if source is None:
        return Reserve(request, HandoffId(name), 1, WorkerId("nobody"), Epoch("never"), CAPABILITIES)
    them = source.identity
    return Reserve(request, HandoffId(name), 1, them.worker, them.epoch, them.capabilities)


async def in_a_long_step(worker: Station, caller: Caller) -> None:
    """The engine's thread computes, and will for as long as the gate is shut."""
    worker.runner.gate.clear()
    caller.send(Generate(a_request([7] * 8, 2, "long")))
    await asyncio.to_thread(worker.runner.inside.wait)


async def test_sink_in_a_long_step():
    """A promise nobody came for is given back, and its gateway told, while the engine's thread is in a step."""
    async with station("d", Role.DECODE, handoff=SHORT) as sink, calling(sink) as [caller]:
        await in_a_long_step(sink, caller)
        caller.send(reserve("a"))
        await caller.hear(Granted)
        assert sink.load.blocks.promised == 8
        [failed] = await caller.hear(Failed)
        assert (failed.kind, failed.reason.split(":")[0]) == (FailureKind.UNREACHABLE, "expired")
        assert (sink.load.blocks.promised, sink.load.counters.handoffs_expired, sink.load.healthy) == (0, 1, True)
        assert not sink.runner.gate.is_set()
        sink.runner.gate.set()
        await caller.done("long")
        await sink.at_rest()


async def test_no_free_block():
    """With every block promised or bound to silent sources, leases bring all of them back, and the next one fits."""
    impatient = msgspec.structs.replace(SHORT, max_busy_s=0.0)
    async with (
        station("d", Role.DECODE, num_blocks=16, handoff=impatient) as sink,
        hand_source() as source,
        calling(sink) as [caller],
    ):
        them = source.identity
        caller.send(
            Reserve(REQUEST, HandoffId("h"), 1, them.worker, them.epoch, them.capabilities),
            reserve("b"),
        )
        await caller.hear(Granted, 2)
        chunks, _ = source.compute(REQUEST)
        await source.introduce(sink)
        source.send(*source.offers("h", chunks[:1]))
        full = await sink.until(lambda load: load.blocks.live == 8)
        assert (full.blocks.free - full.blocks.promised, full.blocks.promised) == (0, 8)
        caller.send(reserve("c"))
        await caller.hear(Busy)
        assert {failed.request_id for failed in await caller.hear(Failed, 2)} == {"r", "b"}
        empty = await sink.at_rest()
        assert (empty.blocks.free, empty.counters.handoffs_expired) == (16, 2)
        caller.send(reserve("d", num_tokens=60))
        assert (await caller.hear(Granted, 3))[-1].request_id == "d"
        caller.send(Cancel(reserve("d").request.request_id))
        await sink.at_rest()


async def test_room_is_waited_for_by_tier():
    """Who finds none is granted it as soon as there is some, the better tier first; who leaves is not waited for."""
    async with station("d", Role.DECODE, num_blocks=16) as sink, calling(sink) as [caller]:
        caller.send(reserve("a", num_tokens=60))
        await caller.hear(Granted)
        for name, tier in (("flex", Tier.FLEX), ("gone", Tier.RESERVED), ("default", Tier.DEFAULT)):
            caller.send(reserve(name, num_tokens=60, tier=tier))
        for name in ("gone", "a"):
            caller.send(Cancel(RequestId(name)))
        assert "default" == (await caller.hear(Granted, 2))[-1].request_id
        caller.send(Cancel(RequestId("default")))
        assert "flex" == (await caller.hear(Granted, 3))[-1].request_id
        caller.send(Cancel(RequestId("flex")))
        await sink.at_rest()


async def test_waiting_for_room_costs_nothing(monkeypatch: pytest.MonkeyPatch):
    """Where nothing is computed, nobody asks again and again whether there is room now."""
    num_looks, admit = 0, SinkDesk.admit

    def counted(desk: SinkDesk) -> None:
        nonlocal num_looks
        num_looks += 1
        admit(desk)

    monkeypatch.setattr(SinkDesk, "admit", counted)
    patient = msgspec.structs.replace(HANDOFF, max_busy_s=0.3)
    async with station("d", Role.DECODE, num_blocks=16, handoff=patient) as sink, calling(sink) as [caller]:
        caller.send(reserve("a", num_tokens=60), reserve("b"))
        await caller.hear(Busy)
        assert num_looks < 20
        caller.send(Cancel(RequestId("a")))
        await sink.at_rest()


async def test_waiting_for_room_ends():
    """With a word how long it was waited."""
    patient = msgspec.structs.replace(HANDOFF, max_busy_s=0.3)
    async with station("d", Role.DECODE, num_blocks=16, handoff=patient) as sink, calling(sink) as [caller]:
        caller.send(reserve("a", num_tokens=60), reserve("b"))
        [busy] = await caller.hear(Busy)
        assert (RequestId("b"), 0.3) == (busy.request_id, busy.waited_s)
        caller.send(Cancel(RequestId("a")))
        await sink.at_rest()


async def test_no_room_is_kept_for_who_waits_no_more():
    """A worse tier has the pool to itself again."""
    patient = msgspec.structs.replace(HANDOFF, max_busy_s=0.3)
    async with station("d", Role.DECODE, num_blocks=16, handoff=patient) as sink, calling(sink) as [caller]:
        caller.send(reserve("a", num_tokens=60), reserve("b", num_tokens=44))
        await caller.hear(Busy)
        caller.send(Cancel(RequestId("a")))
        flex = msgspec.structs.replace(a_request([7] * 32, 2, "flex"), tier=Tier.FLEX)
        caller.send(Generate(flex))
        await caller.done("flex")
        await sink.at_rest()


async def test_source_in_a_long_step():
    """A source whose sink has gone lets go in the middle of a step; the blocks follow when the step is over."""
    async with station("p", Role.PREFILL, handoff=SHORT) as source, calling(source) as [to_source]:
        async with station("d", Role.DECODE, handoff=SHORT) as sink, calling(sink) as [to_sink]:
            source.runner.gate.clear()
            to_sink.send(reserve("a", source))
            [granted] = await to_sink.hear(Granted)
            to_source.send(Prefill(reserve("a").request, granted.grant))
            await asyncio.to_thread(source.runner.inside.wait)
        [failed] = await to_source.hear(Failed)
        assert (failed.kind, "lease ran out" in failed.reason) == (FailureKind.UNREACHABLE, True)
        assert (source.load.handoffs, source.load.counters.handoffs_expired) == ({}, 1)
        assert source.load.running == 1
        assert not source.runner.gate.is_set()
        source.runner.gate.set()
        await source.at_rest()
        assert to_source.tokens("a") == []


async def test_chunk_longer_than_the_lease():
    """A step that outlasts the lease does not cost it: both sides hear each other's heartbeats meanwhile."""
    async with (
        station("p", Role.PREFILL, handoff=SHORT) as source,
        station("d", Role.DECODE, handoff=SHORT) as sink,
        calling(source, sink) as (to_source, to_sink),
    ):
        source.runner.gate.clear()
        to_sink.send(reserve("a", source))
        [granted] = await to_sink.hear(Granted)
        to_source.send(Prefill(reserve("a").request, granted.grant))
        await asyncio.to_thread(source.runner.inside.wait)
        await source.until(lambda load: load.oldest_held_s > 1.5 * SHORT.lease_s)
        assert (source.load.handoffs, sink.load.handoffs) == ({"source_accepted": 1}, {"sink_promised": 1})
        source.runner.gate.set()
        await to_sink.done("a")
        prompt = reserve("a").request.prompt
        assert to_sink.tokens("a") == list(enumerate(expected_output(prompt, NUM_OUTPUT)))
        await source.at_rest()
        await sink.at_rest()
