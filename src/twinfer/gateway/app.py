"""The ASGI application: finds the operation, reads the body, runs it, and turns errors into responses.

One call's life:

1. Method and raw path find a row of the table, the door looks at the credentials, the body is read up to its limit,
   and with it the door knows who is calling.
2. The operation parses it and gives a response, or work to generate. From here on the client's leaving cancels it.
3. The answers go out whole or as a stream. All generations are closed before the last byte is sent.
4. An error before the first byte is an HTTP error. After it, the stream says so and the connection breaks.
"""

import asyncio
import contextlib
import dataclasses
import logging
import uuid
from collections.abc import Coroutine
from typing import TypeVar

from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from twinfer.core.config import GatewayConfig
from twinfer.core.errors import CapacityError, TwinferError
from twinfer.core.service import Tier
from twinfer.gateway.auth import Door, OpenDoor, permit
from twinfer.gateway.delivery import Delivery
from twinfer.gateway.errors import BodyTooLarge, ErrorResponse, InternalError
from twinfer.gateway.exchange import Call, Context, Plain, Work
from twinfer.gateway.permits import PermittedModels
from twinfer.gateway.places import Places
from twinfer.gateway.promises import check_promise
from twinfer.gateway.quotas import ReservedTaken
from twinfer.gateway.routes import Row, error_for, match
from twinfer.gateway.wire import Wire
from twinfer.identity.principal import ANYBODY
from twinfer.identity.sigv4 import Head

log = logging.getLogger("twinfer.gateway")

Result = TypeVar("Result")

_MAX_DIGITS = 18
"""Of a body's length; Python refuses to read numbers of thousands of digits."""


class ClientLeft(Exception):
    """Nobody is there any more to be answered."""


class GatewayApp:
    """The front door. Holds nothing of a call beyond that call."""

    def __init__(self, context: Context, door: Door | None = None) -> None:
        self._context = context
        self._door: Door = door or OpenDoor()
        gateway = context.config.gateway
        self._places = Places(gateway.max_requests, gateway.flex_share)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP exchange."""
        if scope["type"] != "http":
            raise RuntimeError(f"the gateway serves HTTP only, not {scope['type']}")
        arrived_s = self._context.clock.now()
        request_id = str(uuid.uuid4())
        raw_path = _raw_path(scope)
        wire = Wire(send, {"x-amzn-requestid": request_id, "x-request-id": request_id})
        name, error_response = "Unknown", error_for(raw_path)
        try:
            row, model = match(scope["method"], raw_path)
            name, error_response = row.name, row.error
            headers = Headers(scope=scope)
            head = Head.of(scope["method"], raw_path, scope["query_string"], headers.raw)
            claim = self._door.claim(head) if row.action else None
            body = await _read_body(receive, headers, self._context.config.gateway)
            call = Call(
                request_id=request_id,
                principal=await self._door.principal(claim, head, body) if row.action else ANYBODY,
                model=model,
                headers=headers,
                query=QueryParams(scope["query_string"]),
                body=body,
                secure=scope["scheme"] == "https",
                arrived_s=arrived_s,
            )
            patience_s = self._context.config.gateway.client_timeout_s
            self._count(name, await _while_present(receive, wire, self._answer(row, call, wire), patience_s))
        except ClientLeft:
            self._context.meter.cancelled.labels(name).inc()
            log.info("%s %s: the client left", name, request_id)
        except TwinferError as error:
            await self._fail(error, name, wire, error_response)
        except Exception:  # the outermost loop of a call: a bug must not take others down
            log.exception("%s %s: a bug in the gateway", name, request_id)
            await self._fail(InternalError(f"Internal error in request {request_id}."), name, wire, error_response)

    async def _answer(self, row: Row, call: Call, wire: Wire) -> int:
        """Do what was asked and send all of it; returns the status."""
        while True:
            with contextlib.suppress(ReservedTaken):  # then it is planned for another tier
                response = await self._run(row, call, wire)
                break
        if response is None:
            await wire.finish()
            return 200
        await wire.respond(response)
        return response.status_code

    async def _run(self, row: Row, call: Call, wire: Wire) -> Response | None:
        """Do what was asked; ``None`` when the answer went out as a stream that only lacks its end."""
        outcome = await row.operation(call, self._context_of(call, row.action))
        if isinstance(outcome, Response):
            return outcome
        tier, now = self._admit(outcome.work), self._context.clock.now
        try:
            with self._context.meter.in_work.track_inprogress():
                delivery = Delivery(call, self._context, row.name)
                if isinstance(outcome, Plain):
                    return await delivery.plain(outcome)
                await delivery.stream(outcome, wire)
                return None
        finally:
            self._places.leave(tier, now())

    def _admit(self, work: Work) -> Tier:
        """Take a place for it; its tier.

        Raises:
            CapacityError: there is none, or its first token would come too late.
        """
        context, tier = self._context, work.requests[0].tier
        refused = context.meter.accounts.refused
        if work.profile is not None and work.profile.first_token_ms:
            with refused.labels(tier.value, "promise").count_exceptions(CapacityError):
                foreseen_s = context.dispatcher.foresee(work.requests[0], work.forced)
                check_promise(work.profile.first_token_ms / 1e3, foreseen_s)
        with refused.labels(tier.value, "places").count_exceptions(CapacityError):
            self._places.enter(tier, context.clock.now())
        return tier

    def _context_of(self, call: Call, action: str) -> Context:
        """What an operation works with for this caller.

        Raises:
            Forbidden: the caller may not do this to any model.
        """
        if call.principal is ANYBODY:
            return self._context
        permit(call.principal, action)
        models = PermittedModels(self._context.models, call.principal, action)
        return dataclasses.replace(self._context, models=models)

    async def _fail(self, error: TwinferError, name: str, wire: Wire, error_response: ErrorResponse) -> None:
        """Tell the client: by status, or once a stream runs by its last words and a connection that breaks."""
        request_id = wire.headers["x-request-id"]
        if wire.failure is not None:
            log.warning("%s %s: the stream broke: %s", name, request_id, error)
            self._context.meter.broken.labels(name).inc()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._context.config.gateway.client_timeout_s):
                    await wire.write(wire.failure(error))
            return
        response = error_response(error)
        if response.status_code >= 500:
            log.warning("%s %s: %s: %s", name, request_id, response.status_code, error)
        self._count(name, response.status_code)
        await wire.respond(response)

    def _count(self, name: str, status: int) -> None:
        self._context.meter.responses.labels(name, str(status)).inc()


def _raw_path(scope: Scope) -> str:
    """The path as it was sent, without decoding."""
    raw: bytes | None = scope.get("raw_path")
    return scope["path"] if raw is None else raw.decode("ascii", "replace")


async def _read_body(receive: Receive, headers: Headers, config: GatewayConfig) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge: there is more of it, or its header says so.
        ClientLeft: it never came to its end, or nothing more of it for too long.
    """
    limit = config.max_body_bytes
    too_large = BodyTooLarge(f"The request body is longer than {limit} bytes; send less.")
    declared = headers.get("content-length", "0")
    if declared.isdecimal() and (len(declared) > _MAX_DIGITS or int(declared) > limit):
        raise too_large
    body = bytearray()
    while True:
        try:
            async with asyncio.timeout(config.client_timeout_s):
                message = await receive()
        except TimeoutError:
            raise ClientLeft from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_large
        if not message.get("more_body", False):
            return bytes(body)


async def _while_present(
    receive: Receive, wire: Wire, work: Coroutine[None, None, Result], patience_s: float
) -> Result:
    """Await work as long as the client is there; cancels it, and waits for that, otherwise.

    Raises:
        ClientLeft: the client closed the connection, or took nothing for ``patience_s`` at least, and twice that at
            most.
        CapacityError: the server is being stopped and cannot wait for this call any longer.
    """
    task = asyncio.create_task(work)
    left = asyncio.create_task(_disconnected(receive))
    try:
        begun, stuck = -1, False
        while not (task.done() or left.done() or stuck):
            await asyncio.wait((task, left), timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            stuck, begun = wire.taken < wire.begun == begun, wire.begun
        if not task.done():
            raise ClientLeft
        return task.result()
    except asyncio.CancelledError:
        raise CapacityError("The server is being stopped; send the request to another one.") from None
    finally:
        for each in (task, left):
            each.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
