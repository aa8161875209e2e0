"""What is measured, each in a process of its own on one core: a bare echo, and the gateway around an engine of its own.

Started by ``bench.gateway`` as ``python -m bench.gateway_servers KIND SOCKET_FD CORE TOKENS_PER_S``, KIND being echo,
engine, guarded or accounted.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp

from bench.keys import guarded_door
from twinfer.core.config import Config, IdentityConfig, InvocationLogConfig, ModelConfig, QuotaConfig
from twinfer.core.ids import ModelId, WorkerId
from twinfer.core.request import GenerationRequest
from twinfer.core.route import Route, RouteKind
from twinfer.core.tokens import FinishReason, Token
from twinfer.gateway.arrivals import Arrivals
from twinfer.gateway.auth import Door
from twinfer.gateway.base import Journey
from twinfer.gateway.loading import load_model
from twinfer.gateway.models import ModelRegistry, ServedModel
from twinfer.gateway.office import Office, open_office
from twinfer.gateway.serve import build_app, serve

MODEL = "twinfer.bench-v1:0"
ROUTE = Route(WorkerId("here"), None, "the engine is in the gateway's process")
UNBOUNDED = (QuotaConfig(requests_per_min=10**9, tokens_per_min=10**9),)
"""A quota that is kept, and never met."""
CATCH_UP = 64
"""Tokens of one answer that may be due at once."""


class Beat:
    """Emits tokens for all answers under way, all at one pace, like the steps of a batch.

    Args:
        tokens_per_s: of each answer; 0 for one token in every turn of the event loop.
    """

    def __init__(self, token_id: int, tokens_per_s: float) -> None:
        self._token_id = token_id
        self._period = 1 / tokens_per_s if tokens_per_s else 0.0
        self._running: dict[Answering, None] = {}
        self._due = 0.0

    def start(self, request: GenerationRequest, forced: RouteKind | None) -> "Answering":
        """Begin an answer."""
        del forced
        answering = Answering(request, self)
        if not self._running:
            self._due = asyncio.get_running_loop().time()
            self._schedule()
        self._running[answering] = None
        return answering

    def stop(self, answering: "Answering") -> None:
        """End an answer."""
        self._running.pop(answering, None)

    def optimizes(self, model: ModelId) -> bool:
        """There is no pool."""
        return False

    def foresee(self, request: GenerationRequest, forced: RouteKind | None) -> float | None:
        """Nobody knows."""
        return None

    def unready(self) -> str | None:
        """Never."""
        return None

    async def metrics(self) -> str:
        """None."""
        return ""

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        if self._period:
            loop.call_at(self._due, self._step)
        else:
            loop.call_soon(self._step)

    def _step(self) -> None:
        steps = 1
        if self._period:
            late = asyncio.get_running_loop().time() - self._due
            steps = min(CATCH_UP, 1 + max(0, int(late / self._period)))
            self._due += steps * self._period
        for answering in list(self._running):
            answering.emit(self._token_id, steps)
        if self._running:
            self._schedule()


class Answering:
    """One answer; a ``Generation``."""

    route = ROUTE

    def __init__(self, request: GenerationRequest, beat: Beat) -> None:
        self._request = request
        self._beat = beat
        self._emitted = 0
        self.arrivals = Arrivals()

    def emit(self, token_id: int, count: int) -> None:
        """More tokens are there."""
        limit, tokens = self._request.stopping.max_tokens, list[Token]()
        for index in range(self._emitted, min(limit, self._emitted + count)):
            finish = FinishReason.LENGTH if index == limit - 1 else None
            tokens.append(Token(self._request.request_id, index, token_id, finish=finish))
        self._emitted += len(tokens)
        if self._emitted == limit:
            self._beat.stop(self)
        self.arrivals.push(tokens)

    def close(self) -> None:
        """Stop."""
        self._beat.stop(self)

    def journey(self) -> Journey:
        """No way at all."""
        return Journey(ROUTE, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)


async def echo(request: Request) -> Response:
    """What came, parsed and written again."""
    return JSONResponse(await request.json())


def accounted(directory: Path) -> Config:
    """Ledger, invocation log and quotas, all kept in one place."""
    return Config(
        identity=IdentityConfig(database=f"sqlite:///{directory}/usage.db"),
        invocation_log=InvocationLogConfig(file=f"{directory}/invocations.jsonl"),
        quota=UNBOUNDED,
    )


def the_model() -> ServedModel:
    """The demo model's tokenizer and template."""
    return load_model(ModelConfig(id=MODEL), Path(str(files("twinfer").joinpath("demo"))))


def engine_app(
    tokens_per_s: float, door: Door | None = None, office: Office | None = None, config: Config | None = None
) -> ASGIApp:
    """The gateway over an engine in its own process; open to anybody without a ``door``."""
    model = the_model()
    beat = Beat(model.tokenizer.encode("x", add_special_tokens=False)[0], tokens_per_s)
    config = msgspec.structs.replace(config or Config(), model=(ModelConfig(id=MODEL),))
    return build_app(config, ModelRegistry([model]), beat, door, office)


async def run(kind: str, sock: socket.socket, tokens_per_s: float) -> None:
    """Serve until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if kind == "accounted":
        with tempfile.TemporaryDirectory() as directory:
            config = accounted(Path(directory))
            async with open_office(config) as office:
                await serve(engine_app(tokens_per_s, guarded_door(), office, config), sock, stop, drain_s=1)
        return
    echoing = Starlette(routes=[HttpRoute("/{path:path}", echo, methods=["POST"])])
    apps: Mapping[str, Callable[[], ASGIApp]] = {
        "echo": lambda: echoing,
        "engine": lambda: engine_app(tokens_per_s),
        "guarded": lambda: engine_app(tokens_per_s, guarded_door()),
    }
    await serve(apps[kind](), sock, stop, drain_s=1)


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[3])})
    asyncio.run(run(sys.argv[1], socket.socket(fileno=int(sys.argv[2])), float(sys.argv[4])))
