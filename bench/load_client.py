"""What the load generator of ``twinfer bench`` costs: its lag and its CPU against an echo, next to httpx.

    python -m bench.load_client
    python -m bench.load_client --rate 300 --tokens 16 --seconds 10

The echo is Starlette on uvicorn in a process of its own, and streams its events as fast as it can; both processes run
where the system puts them. `httpx` reads the same streams line by line at the same moments, as most clients do.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import httpx
import uvicorn
from rich.console import Console
from rich.table import Table
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from twinfer.core.clock import MonotonicClock
from twinfer.loadtest.api import Options
from twinfer.loadtest.arrivals import LoadSpec, timed
from twinfer.loadtest.ask import Endpoint
from twinfer.loadtest.http import Pool, read_origin
from twinfer.loadtest.lag import Lag, LoopWatch, lag_of
from twinfer.loadtest.openai import ChatCompletions
from twinfer.loadtest.record import Record
from twinfer.loadtest.runner import Runner
from twinfer.loadtest.words import Passage, Writer
from twinfer.loadtest.work import WorkSpec, sessions

Driver = Callable[[str, LoadSpec, WorkSpec], Awaitable[tuple[Lag, int]]]


async def _echo(request: Request) -> StreamingResponse:
    asked = await request.json()
    count = asked["max_tokens"]

    async def events() -> AsyncIterator[bytes]:
        for index in range(count):
            finish = "length" if index == count - 1 else None
            choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": finish}
            yield b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
            await asyncio.sleep(0)
        usage = {"prompt_tokens": 1, "completion_tokens": count}
        yield b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def _serve(descriptor: int) -> None:
    app = Starlette(routes=[Route("/v1/chat/completions", _echo, methods=["POST"])])
    uvicorn.Server(uvicorn.Config(app, fd=descriptor, log_level="error")).run()


@contextlib.contextmanager
def echo() -> Iterator[str]:
    """The echo's URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock:
        os.set_inheritable(sock.fileno(), True)
        command = [sys.executable, "-m", "bench.load_client", "--serve", str(sock.fileno())]
        process = subprocess.Popen(command, close_fds=False)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(url).status_code:
                    break
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


async def _ours(url: str, load: LoadSpec, work: WorkSpec) -> tuple[Lag, int]:
    clock, origin = MonotonicClock(), read_origin(url)
    endpoint = Endpoint(
        origin, ChatCompletions(Options("echo")), Pool(origin, clock), lambda path, headers, body: headers, 60.0
    )
    runner = Runner(endpoint, Writer(0), load, 0.0, clock)
    watch = LoopWatch(clock)
    progress = await runner.run(sessions(work, None))
    whole = sum(one.error is None for one in progress.records)
    return lag_of(progress.records, watch.delays_s, watch.stop()), whole


async def _httpx(url: str, load: LoadSpec, work: WorkSpec) -> tuple[Lag, int]:
    clock, writer, records = MonotonicClock(), Writer(0), list[Record]()
    start_s, watch = clock.now(), LoopWatch(clock)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits, trust_env=False) as client:

        async def one(text: str, max_tokens: int, due_s: float) -> None:
            body = {"model": "echo", "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens}
            record = Record(0, 0, due_s, clock.now() - start_s)
            record.lag_s = record.sent_s - due_s
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        record.pieces += len(json.loads(line[6:])["choices"])
            records.append(record)

        async with asyncio.TaskGroup() as group:
            for due_s, session in timed(load, sessions(work, None)):
                await asyncio.sleep(max(0.0, due_s - (clock.now() - start_s)))
                turn = session.turns[0]
                assert isinstance(turn.prompt, Passage)
                group.create_task(one(writer.text(turn.prompt), turn.max_tokens, due_s))
    return lag_of(records, watch.delays_s, watch.stop()), len(records)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.load_client", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=300.0, help="requests per second (default: 300)")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer, an event each (default: 16)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each client (default: 10)")
    parser.add_argument("--alone", action="store_true", help="without httpx")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        _serve(options.serve)
        return 0
    load = LoadSpec(rate=options.rate, max_s=options.seconds)
    work = WorkSpec(output=str(options.tokens))
    table = Table(title=f"{options.rate:g} requests/s, {options.tokens} events each, {options.seconds:g} s")
    for column in ("", "answered", "sent late p50 ms", "p99", "loop late p99", "of a core"):
        table.add_column(column, justify="right")
    drivers: dict[str, Driver] = {"twinfer bench": _ours}
    if not options.alone:
        drivers["httpx"] = _httpx
    with echo() as url:
        for name, driver in drivers.items():
            lag, whole = asyncio.run(_measured(driver, url, load, work))
            late = (f"{1e3 * value:.2f}" for value in (lag.send_p50_s, lag.send_p99_s, lag.loop_p99_s))
            table.add_row(name, f"{whole:,}", *late, f"{lag.cpu_share:.0%}")
    Console().print(table)
    return 0


async def _measured(driver: Driver, url: str, load: LoadSpec, work: WorkSpec) -> tuple[Lag, int]:
    return await driver(url, load, work)


if __name__ == "__main__":
    sys.exit(main())
