"""Loads are offered as planned: open ones do not wait, closed ones do, sessions carry what was said."""

import asyncio

import msgspec
import pytest

from tests.loadtest.servers import Exchange, paced, serving
from tests.loadtest.test_ask import endpoint
from twinfer.core.clock import MonotonicClock
from twinfer.core.errors import EndpointError
from twinfer.loadtest.arrivals import LoadSpec
from twinfer.loadtest.http import Pool, read_origin
from twinfer.loadtest.preflight import first_model, probe
from twinfer.loadtest.runner import Runner
from twinfer.loadtest.words import Writer
from twinfer.loadtest.work import WorkSpec, sessions

WORK = WorkSpec(input="16", output="2")


def runner(url: str, load: LoadSpec) -> Runner:
    """One that asks there."""
    return Runner(endpoint(url), Writer(0), load, 0.0, MonotonicClock())


async def test_an_open_load_does_not_wait():
    """All requests are under way before the first answer comes."""
    begun = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.number == 9:
            begun.set()
        await begun.wait()
        await paced(lambda number: 0.0, lambda number: 0.0, 2)(exchange)

    async with serving(answer) as served:
        its = runner(served.url, LoadSpec(rate=500.0, max_sessions=10))
        found = await its.run(sessions(WORK, None))
        its._endpoint.pool.close()
    assert [None] * 10 == [one.error for one in found.records]
    assert set(range(10)) == {one.session for one in found.records}


async def test_a_closed_load_waits():
    """Never more at once than there are users, and all are answered."""
    now, most = 0, 0

    async def answer(exchange: Exchange) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await paced(lambda number: 0.002, lambda number: 0.0, 2)(exchange)
        now -= 1

    async with serving(answer) as served:
        its = runner(served.url, LoadSpec(mode="closed", concurrency=3, max_sessions=20))
        found = await its.run(sessions(WORK, None))
        its._endpoint.pool.close()
    assert (3, 20) == (most, len(found.records))
    assert all(one.lag_s < 1 for one in found.records)


async def test_turns_carry_what_was_said():
    """The second request of a session holds the first question, its answer, and the next question."""
    async with serving(paced(lambda number: 0.0, lambda number: 0.0, 2)) as served:
        its = runner(served.url, LoadSpec(mode="closed", max_sessions=1))
        found = await its.run(sessions(WorkSpec(input="16", output="2", turns=2), None))
        its._endpoint.pool.close()
    first, second = (msgspec.json.decode(one.body)["messages"] for one in served.exchanges)
    assert [(0, 0), (0, 1)] == [(one.session, one.turn) for one in found.records]
    assert ["user", "assistant", "user"] == [one["role"] for one in second]
    assert (first[0], "word word ") == (second[0], second[1]["content"])
    assert found.records[1].due_s >= found.records[0].end_s


async def test_stopping_keeps_what_was_measured():
    """Requests under way are given up, those that ended are there."""

    async def answer(exchange: Exchange) -> None:
        await paced(lambda number: 0.0 if number < 5 else 3600.0, lambda number: 0.0, 2)(exchange)

    async with serving(answer) as served:
        its = runner(served.url, LoadSpec(rate=1000.0, max_sessions=8))
        running = asyncio.create_task(its.run(sessions(WORK, None)))
        while len(its.progress.records) < 5 or its.progress.in_flight < 3:
            await asyncio.sleep(0.001)
        its.stop("enough")
        found = await running
        its._endpoint.pool.close()
    assert (5, "enough") == (len(found.records), found.stopped)


async def test_the_server_says_how_it_counts():
    """Two tokens a word and twelve for the template: prompts are written so that the count comes out."""

    async def answer(exchange: Exchange) -> None:
        words = len(msgspec.json.decode(exchange.body)["messages"][0]["content"].split())
        exchange.writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        exchange.event({"choices": [{"delta": {"content": "x"}, "finish_reason": "length"}]})
        exchange.event({"usage": {"prompt_tokens": 2 * words + 12, "completion_tokens": 1}})
        exchange.chunk(b"data: [DONE]\n\n")
        exchange.writer.write(b"0\r\n\r\n")

    async with serving(answer) as served:
        its, writer = endpoint(served.url), Writer(0)
        await probe(its, writer, MonotonicClock())
        its.pool.close()
    assert (0.5, 12.0) == (writer.words_per_token, writer.overhead_tokens)


@pytest.mark.parametrize(
    ("body", "found"), [(b'{"data": [{"id": "a"}, {"id": "b"}]}', "a"), (b'{"data": []}', None), (b"<html>", None)]
)
async def test_the_first_model(body: bytes, found: str | None):
    """The one that the server lists first; where it lists none, --model is asked for."""

    async def answer(exchange: Exchange) -> None:
        exchange.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async with serving(answer) as served:
        origin = read_origin(served.url)
        pool = Pool(origin, MonotonicClock())
        if found is None:
            with pytest.raises(EndpointError, match="--model"):
                await first_model(origin, pool, {})
        else:
            assert found == await first_model(origin, pool, {})
        pool.close()
