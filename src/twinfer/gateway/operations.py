"""Endpoints for whoever runs the server."""

from starlette.responses import PlainTextResponse, Response

from twinfer.gateway.exchange import Call, Context


async def healthz(call: Call, context: Context) -> Response:
    """The process answers."""
    return PlainTextResponse("ok\n")


async def readyz(call: Call, context: Context) -> Response:
    """Requests can be served; if not, 503 and the reason."""
    reason = context.dispatcher.unready()
    return PlainTextResponse("ready\n") if reason is None else PlainTextResponse(f"{reason}\n", 503)


async def metrics(call: Call, context: Context) -> Response:
    """The gateway's series and the workers'."""
    text = context.meter.text() + await context.dispatcher.metrics()
    return Response(text, headers={"content-type": context.meter.content_type})
