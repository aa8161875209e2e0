"""What the gateway costs, in requests and in streamed tokens per second of one core, next to a bare Starlette echo.

    python -m bench.gateway
    python -m bench.gateway --seconds 10 --rounds 5
    python -m bench.gateway --signed --only requests

Server and client have a core each. Rows: `echo` is Starlette on the same uvicorn, which parses and writes JSON and does
nothing else; `engine inside` is the gateway around an engine in its own process, which hands out tokens as fast as they
are taken; with --signed, `signed` and `bearer` are the same gateway asking for keys, shown by SigV4 and by bearer keys,
and `with accounts` is the signed one with quotas, the usage ledger in SQLite and the invocation log; `through gRPC` is
a deployment with an emulated decode worker, which shares the client's core. Rates are per second of the server's CPU
time: what one core of it does when it has nothing else to do and nobody to wait for.
"""

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from bench.deployment import SERVE, started
from bench.gateway_client import StreamCounter, Tally, Times, ask, converse_request
from bench.gateway_servers import MODEL, the_model
from bench.keys import PROOFS, Prove

SERVER_CORE, CLIENT_CORE = 0, 1
CONNECTIONS = 16
STREAMS = 32
STREAM_TOKENS = 2000
ANSWER_TOKENS = 8
TICKS = os.sysconf("SC_CLK_TCK")
DEPLOYMENT = f"""
[[model]]
id = "{MODEL}"

[[pool]]
name = "both"
role = "both"
engine = "emulated"
kv_mib = 256
max_running = 64
[pool.emulation]
script_ids = [{the_model().tokenizer.encode("x", add_special_tokens=False)[0]}]
"""


@dataclass(frozen=True, slots=True)
class Server:
    """Something to measure: where it listens, and whose CPU time counts."""

    address: tuple[str, int]
    pid: int

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextlib.contextmanager
def server(kind: str, tokens_per_s: float = 0.0) -> Iterator[Server]:
    """An echo or a gateway of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        os.set_inheritable(sock.fileno(), True)
        command = [sys.executable, "-m", "bench.gateway_servers", kind, str(sock.fileno()), str(SERVER_CORE)]
        process = subprocess.Popen([*command, str(tokens_per_s)], close_fds=False)
        address = sock.getsockname()
    try:
        yield Server(address, process.pid)
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def deployment() -> Iterator[Server]:
    """``twinfer serve`` with an emulated worker; its gateway is what is measured."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(DEPLOYMENT)
        config.flush()
        with started([*SERVE, "--config", config.name]) as served:
            gateway = next(pid for pid in _descendants(served.pid) if "twinfer.gateway" in _command(pid))
            for pid in _descendants(served.pid):
                _pin(pid, SERVER_CORE if pid == gateway else CLIENT_CORE)
            place = urlsplit(served.url)
            assert place.hostname is not None
            assert place.port is not None
            yield Server((place.hostname, place.port), gateway)


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def _pin(pid: int, core: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


async def load(address: tuple[str, int], seconds: float, rate: float = 0.0, prove: Prove | None = None) -> Tally:
    """Converse from many connections, as fast as they are answered or at a rate."""
    tally, until = Tally(), time.perf_counter() + seconds
    request = converse_request(MODEL, "converse", ANSWER_TOKENS, prove)
    pause_s = CONNECTIONS / rate if rate else 0.0
    first = [pause_s * number / CONNECTIONS for number in range(CONNECTIONS)]
    await asyncio.gather(*(ask(address, request, Times(until, start, pause_s), tally) for start in first))
    return tally


async def stream(address: tuple[str, int], seconds: float) -> Tally:
    """ConverseStream from many connections."""
    tally, until = Tally(), time.perf_counter() + seconds
    request = converse_request(MODEL, "converse-stream", STREAM_TOKENS)
    loop = asyncio.get_running_loop()
    counters = []
    for _ in range(STREAMS):
        _, counter = await loop.create_connection(lambda: StreamCounter(request, until, tally), *address)
        counters.append(counter.done)
    await asyncio.gather(*counters)
    return tally


def measured(target: Server, work: Coroutine[None, None, Tally]) -> tuple[Tally, float, float]:
    """What came back, in how many seconds of the clock and of the server's CPU."""
    cpu, clock = target.cpu_s(), time.perf_counter()
    tally = asyncio.run(work)
    return tally, time.perf_counter() - clock, target.cpu_s() - cpu


def _rows(signed: bool) -> Mapping[str, Callable[[], contextlib.AbstractContextManager[Server]]]:
    """What is measured, by name."""
    plain = {"echo": lambda: server("echo"), "engine inside": lambda: server("engine")}
    if signed:
        guarded = {name: lambda: server("guarded") for name in ("signed", "bearer")}
        return plain | guarded | {"with accounts": lambda: server("accounted")}
    return plain | {"through gRPC": deployment}


def requests(options: argparse.Namespace, console: Console) -> None:
    """Requests per second, and what the gateway adds to an echo's latency at half of what it can do."""
    table = Table(title=f"Converse, {ANSWER_TOKENS} tokens an answer, {CONNECTIONS} connections")
    for column in ("", "requests/s", "per core", "p50 ms at half load", "added ms"):
        table.add_column(column, justify="right")
    with contextlib.ExitStack() as stack:
        targets = {name: stack.enter_context(make()) for name, make in _rows(options.signed).items()}
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in targets}
        for name, target in targets.items():
            asyncio.run(load(target.address, 1.0, prove=PROOFS.get(name)))
        for _ in range(options.rounds):
            for name, target in targets.items():
                tally, clock, cpu = measured(target, load(target.address, options.seconds, prove=PROOFS.get(name)))
                rates[name].append((tally.answers / clock, tally.answers / cpu))
        half = statistics.median(rate for rate, _ in rates["engine inside"]) / 2
        base = 0.0
        for name, target in targets.items():
            per_s = statistics.median(rate for rate, _ in rates[name])
            at = min(half, per_s / 2)
            paced = load(target.address, options.seconds, at, PROOFS.get(name))
            p50 = statistics.median(asyncio.run(paced).latencies) * 1e3
            base = base or p50
            per_core = statistics.median(rate for _, rate in rates[name])
            table.add_row(name, f"{per_s:,.0f}", f"{per_core:,.0f}", f"{p50:.2f}", f"{p50 - base:.2f}")
    console.print(table)


def streams(options: argparse.Namespace, console: Console) -> None:
    """Streamed tokens per second at several speeds of the engine."""
    table = Table(title=f"ConverseStream, {STREAMS} streams at once, tokens per second")
    for column in ("", "offered", "streamed", "of a core", "per core", "an event holds"):
        table.add_column(column, justify="right")
    for offered in options.offered:
        with server("engine", offered / STREAMS) as inside:
            asyncio.run(load(inside.address, 0.5))
            tally, clock, cpu = measured(inside, stream(inside.address, options.seconds))
            _row(table, "engine inside", f"{offered:,.0f}", tally, clock, cpu)
    with deployment() as far:
        asyncio.run(load(far.address, 0.5))
        tally, clock, cpu = measured(far, stream(far.address, options.seconds))
        _row(table, "through gRPC", "as it comes", tally, clock, cpu)
    console.print(table)


def _row(table: Table, name: str, offered: str, tally: Tally, clock: float, cpu: float) -> None:
    rate, share = tally.tokens / clock, cpu / clock
    cells = (f"{rate:,.0f}", f"{share:.0%}", f"{tally.tokens / cpu:,.0f}", str(tally.median_tokens_per_event()))
    table.add_row(name, offered, *cells)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gateway", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, help="of the requests, side by side (default: 3)")
    parser.add_argument("--offered", type=float, nargs="+", default=[25e3, 50e3, 100e3, 150e3], help="tokens/s in all")
    parser.add_argument("--signed", action="store_true", help="what keys cost, instead of the way through gRPC")
    parser.add_argument("--only", choices=("requests", "streams"), help="one of the two tables")
    options = parser.parse_args()
    os.sched_setaffinity(0, {CLIENT_CORE})
    console = Console()
    if options.only != "streams":
        requests(options, console)
    if options.only != "requests":
        streams(options, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
