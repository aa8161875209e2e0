"""Workers that change their role while they are at work: real engines, streams and handoffs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from tests.fakes import a_request, expected_output
from tests.worker.test_service import NUM_OUTPUT, PROMPT, REQUEST, numbered, pair, reserve
from tests.worker.workplace import HANDOFF, Caller, Station, calling, station
from twinfer.core.capabilities import Role
from twinfer.core.ids import RequestId, next_epoch
from twinfer.core.messages import Become, Busy, Generate, Granted, Hello, Prefill, Refused

LONG = 4000


def become(role: Role) -> Become:
    """An order."""
    return Become(RequestId("turn"), role)


async def test_both_turn_round():
    """After a handoff the two change places, and pass KV the other way, under their next epochs."""
    async with pair() as (p, d, to_p, to_d):
        to_d.send(reserve(REQUEST, p))
        [old] = await to_d.hear(Granted)
        to_p.send(Prefill(REQUEST, old.grant))
        await to_d.done("r")
        await p.at_rest()
        await d.at_rest()
        assert [each.service.reception.num_open() for each in (p, d)] == [0, 0]
        to_p.send(become(Role.DECODE))
        to_d.send(become(Role.PREFILL))
        for caller, each, role in ((to_p, p, Role.DECODE), (to_d, d, Role.PREFILL)):
            await caller.done("turn")
            now = caller.all(Hello)[-1].identity
            assert (now.role, now.epoch) == (role, next_epoch(each.identity.epoch))
        d.identity = to_d.all(Hello)[-1].identity
        other = a_request([*PROMPT[::-1]], NUM_OUTPUT, request_id="back")
        to_p.send(reserve(other, d, "h2"))
        [granted] = await to_p.hear(Granted)
        to_d.send(Prefill(other, granted.grant))
        await to_p.done("back")
        assert to_p.tokens("back") == numbered(expected_output(PROMPT[::-1], NUM_OUTPUT))


async def test_old_grant():
    """A grant that names the epoch before is refused."""
    async with pair() as (p, _, to_p, to_d):
        to_d.send(reserve(REQUEST, p))
        [granted] = await to_d.hear(Granted)
        to_p.send(become(Role.BOTH))
        await to_p.done("turn")
        to_p.send(Prefill(REQUEST, granted.grant))
        [refused] = await to_p.hear(Refused)
        assert refused.reason == "stale: the grant names an earlier start or role of this worker"


async def test_drains_turns_away_and_hands_back():
    """New work is turned away; what does not end in time is given back with what it drew, and can go on elsewhere."""
    handoff = msgspec.structs.replace(HANDOFF, drain_s=0.1)
    async with station("d", Role.DECODE, 2048, handoff=handoff) as d, calling(d) as [to_d]:
        d.runner.gate.clear()
        to_d.send(Generate(a_request(PROMPT, LONG, request_id="long")))
        await d.until(lambda load: load.running > 0)
        to_d.send(become(Role.PREFILL), Generate(a_request(PROMPT, 1, request_id="new")))
        busy = await to_d.hear(Busy, 2)
        assert [message.request_id for message in busy] == ["new", "long"]
        assert (await d.until(lambda load: load.draining)).draining
        d.runner.gate.set()
        await to_d.done("turn")
        assert not (await d.at_rest()).draining
        drawn = [token for _, token in to_d.tokens("long")]
        assert drawn == expected_output(PROMPT, len(drawn))


async def test_leaves_at_once_when_idle():
    """A worker that is told to stop and has nothing to do takes nothing any more, and goes."""
    async with station("d", Role.DECODE) as d, calling(d) as [to_d]:
        await to_d.hear(Hello)
        await d.service.turning.leave()
        to_d.send(Generate(REQUEST))
        [busy] = await to_d.hear(Busy)
        assert busy.request_id == REQUEST.request_id


@contextlib.asynccontextmanager
async def leaving_at_leisure() -> AsyncIterator[tuple[Station, Caller, "asyncio.Task[None]"]]:
    """A decode worker with an answer under way, which was told to go within a minute; its gate is shut."""
    handoff = HANDOFF.__class__(lease_s=1.0, heartbeat_s=0.2, chunk_kib=1, drain_s=0.0)
    async with station("d", Role.DECODE, handoff=handoff) as d, calling(d) as [to_d]:
        d.runner.gate.clear()
        to_d.send(Generate(a_request(PROMPT, NUM_OUTPUT, request_id="long")))
        await d.until(lambda load: load.running > 0)
        leaving = asyncio.create_task(d.service.turning.leave(60.0))
        await d.until(lambda load: load.draining)
        yield d, to_d, leaving


async def test_leaves_at_leisure():
    """It takes nothing new, ends what it has however long after its usual time, and goes."""
    async with leaving_at_leisure() as (d, to_d, leaving):
        to_d.send(Generate(REQUEST))
        [busy] = await to_d.hear(Busy)
        assert (busy.request_id, leaving.done()) == (REQUEST.request_id, False)
        d.runner.gate.set()
        await leaving
        await to_d.done("long")
        assert to_d.tokens("long") == numbered(expected_output(PROMPT, NUM_OUTPUT))
        await d.service.turning.leave()


async def test_leisure_is_cut_short():
    """A worker that drains at leisure and is then told to stop hands back what it has."""
    async with leaving_at_leisure() as (d, to_d, leaving):
        stopping = asyncio.create_task(d.service.turning.leave())
        [busy] = await to_d.hear(Busy)
        assert busy.request_id == "long"
        d.runner.gate.set()
        await asyncio.gather(leaving, stopping)
