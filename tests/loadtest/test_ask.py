"""Moments are measured right, and every way of failing has its name."""

import asyncio
import itertools
import re
import socket
import statistics
from collections.abc import Mapping

import msgspec
import pytest

from tests.loadtest.servers import HEAD, Answer, Exchange, paced, piece, serving, status
from twinfer.core.clock import ManualClock, MonotonicClock
from twinfer.loadtest.api import Options, Question
from twinfer.loadtest.ask import Endpoint, Listener, ask
from twinfer.loadtest.http import Pool, read_origin
from twinfer.loadtest.openai import ChatCompletions, EventReader
from twinfer.loadtest.record import ErrorKind, Record
from twinfer.loadtest.slo import Objectives
from twinfer.loadtest.summary import gaps_s, summarise

QUESTION = Question(("one two three",), 4)


def unsigned(path: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
    """No key."""
    return headers


def endpoint(url: str, timeout_s: float = 30.0) -> Endpoint:
    """A chat endpoint."""
    origin = read_origin(url)
    return Endpoint(origin, ChatCompletions(Options("m")), Pool(origin, MonotonicClock()), unsigned, timeout_s)


async def asked(its: Endpoint, due_s: float = 0.0) -> Record:
    """One question now."""
    record, clock = Record(0, 0, due_s, 0.0), MonotonicClock()
    await ask(its, QUESTION, record, clock, clock.now())
    its.pool.close()
    return record


def test_injected_delays_with_a_clock_moved_by_hand():
    """Percentiles of TTFT, gaps, TPOT and end to end are those of the delays put in, whatever comes together."""
    clock, records = ManualClock(100.0), list[Record]()
    for number in range(100):
        record = Record(number, 0, float(number), float(number))
        begun_s = clock.now()
        listener = Listener(EventReader(), record, begun_s)
        listener.head(200, {})
        clock.advance(0.100 + 0.001 * number)
        event = b"data: " + msgspec.json.encode(piece("x")) + b"\n\n"
        listener.body(event, clock.now())
        for _ in range(4):
            clock.advance(0.020)
            listener.body(event * 2, clock.now())
        listener.body(b'data: {"usage": {"prompt_tokens": 3, "completion_tokens": 9}}\n\ndata: [DONE]\n\n', clock.now())
        listener.ended()
        record.end_s = record.sent_s + clock.now() - begun_s
        records.append(record)
    found = summarise(records, Objectives(ttft_s=0.1495), None, seed=1)
    assert found.ttft is not None
    assert found.itl is not None
    assert found.tpot is not None
    assert found.e2e is not None
    assert found.attained is not None
    assert (0.149, 0.189, 0.198) == pytest.approx((found.ttft.p50.value, found.ttft.p90.value, found.ttft.p99.value))
    assert (0.020, 0.020, 400) == pytest.approx((found.itl.p50.value, found.itl.p99.value, found.itl.count))
    assert found.tpot.p50.value == pytest.approx(0.080 / 8, rel=1e-3)
    assert found.e2e.p50.value == pytest.approx(0.229)
    assert (900, 900, 9 / 5) == (found.output_tokens, found.counted_tokens, found.tokens_per_arrival)
    assert 0.5 == found.attained.value


async def test_injected_delays_over_a_real_socket():
    """Medians are within 2 % of the moments at which the server wrote."""
    async with serving(paced(lambda number: 0.6 + 0.01 * (number % 5), lambda number: 0.06, 6)) as served:
        its = endpoint(served.url)
        records = [Record(number, 0, 0.0, 0.0) for number in range(15)]
        clock = MonotonicClock()
        async with asyncio.TaskGroup() as group:
            for record in records:
                group.create_task(ask(its, QUESTION, record, clock, clock.now()))
                await asyncio.sleep(0.04)
        its.pool.close()
    assert [None] * 15 == [record.error for record in records]
    assert {6} == {record.tokens for record in records}
    wrote = [exchange.wrote_s for exchange in served.exchanges]
    firsts = [its.wrote_s[0] - its.came_s for its in served.exchanges]
    spans = [(moments[-2] - moments[0]) / 5 for moments in wrote]
    gaps = [after - before for moments in wrote for before, after in itertools.pairwise(moments)]
    heard = [gap for record in records for gap in gaps_s(record)]
    assert statistics.median((record.ttft_s or 0) - record.connect_s for record in records) == pytest.approx(
        statistics.median(firsts), rel=0.02
    )
    assert statistics.median(record.tpot_s or 0 for record in records) == pytest.approx(
        statistics.median(spans), rel=0.02
    )
    assert statistics.median(heard) == pytest.approx(statistics.median(gaps), rel=0.02)


async def test_what_is_noted_of_an_answer():
    """Usage, route, finish reason and the delay of the client are in the record."""
    async with serving(paced(lambda number: 0.0, lambda number: 0.0, 3)) as served:
        record = await asked(endpoint(served.url), due_s=-2.0)
    assert (10, 3, 3, "length", "disaggregated", None) == (
        record.prompt_tokens,
        record.output_tokens,
        record.pieces,
        record.finish,
        record.route,
        record.error,
    )
    assert 2.0 <= record.lag_s < 3.0


async def hang(exchange: Exchange) -> None:
    """Never answers."""
    await asyncio.sleep(3600)


async def cut(exchange: Exchange) -> None:
    """Ends after a token, in mid-body."""
    exchange.writer.write(HEAD)
    exchange.event(piece("x"))
    exchange.writer.close()


async def unfinished(exchange: Exchange) -> None:
    """Ends the body cleanly, without an end of the answer."""
    exchange.writer.write(HEAD)
    exchange.event(piece("x"))
    exchange.writer.write(b"0\r\n\r\n")


async def failing(exchange: Exchange) -> None:
    """An error instead of the second token."""
    exchange.writer.write(HEAD)
    exchange.event(piece("x"))
    exchange.event({"error": {"message": "engine down"}})
    exchange.writer.write(b"0\r\n\r\n")


async def silent(exchange: Exchange) -> None:
    """A whole answer without text."""
    exchange.writer.write(HEAD)
    exchange.event(piece("", "stop"))
    exchange.chunk(b"data: [DONE]\n\n")
    exchange.writer.write(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (hang, ErrorKind.TIMEOUT, "within 0.3 s"),
        (cut, ErrorKind.BROKEN, "closed"),
        (unfinished, ErrorKind.BROKEN, "ended before the answer"),
        (failing, ErrorKind.FAILED, "engine down"),
        (silent, ErrorKind.EMPTY, "finish reason stop"),
        (status(401, b'{"error": "wrong key"}'), ErrorKind.REFUSED, "HTTP 401: .*wrong key"),
        (status(200, b"<html>hello</html>\n"), ErrorKind.RUBBISH, "<html>"),
    ],
)
async def test_every_failure_has_its_name(answer: Answer, kind: ErrorKind, message: str):
    """What went wrong is told apart, in words of the server's where there are some."""
    async with serving(answer) as served:
        record = await asked(endpoint(served.url, timeout_s=0.3 if answer is hang else 30.0))
    assert kind == record.error
    assert re.search(message, record.message)
    assert record.end_s > record.sent_s > 0


async def test_nobody_there():
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    record = await asked(endpoint(f"http://127.0.0.1:{port}"))
    assert ErrorKind.UNREACHABLE == record.error
