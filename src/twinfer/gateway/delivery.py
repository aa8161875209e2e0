"""Generates what a dialect asked for and hands it to the client, whole or as it comes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from starlette.responses import Response

from twinfer.core.errors import Throttled
from twinfer.gateway.answers import Answer, Answers, Piece
from twinfer.gateway.books import Order
from twinfer.gateway.exchange import Call, Context, Plain, Streamed, Work
from twinfer.gateway.invocation_log import Said
from twinfer.gateway.prepare import ROUTE_HEADER
from twinfer.gateway.quotas import ReservedTaken
from twinfer.gateway.wire import Wire
from twinfer.usage.record import Status, Tokens


class Delivery:
    """One call's answers on their way.

    Args:
        operation: name for the metrics.
    """

    def __init__(self, call: Call, context: Context, operation: str) -> None:
        self._call = call
        self._context = context
        self._operation = operation

    async def plain(self, outcome: Plain) -> Response:
        """Generate everything, then render it.

        Raises:
            ReservedTaken: its share of the reserved tier went to others after it was planned; nothing was done.
            TwinferError: a generation failed.
        """
        async with self._start(outcome.work) as answers:
            await self._first(answers, outcome.work)
            await answers.complete()
            response = outcome.render(answers.all, self._complete(answers, outcome.work))
            response.headers.update(_route_header(answers.all[0]))
            return response

    async def stream(self, outcome: Streamed, wire: Wire) -> None:
        """Send pieces as they come, up to the end of the stream but not yet of the response.

        The status is held back until there is a first token, so that an early failure is an HTTP error, which clients
        may retry; but not for longer than they would wait.

        Raises:
            ReservedTaken: its share of the reserved tier went to others after it was planned; nothing was done.
            TwinferError: a generation failed.
        """
        rendering = outcome.rendering
        async with self._start(outcome.work) as answers:
            pieces = await self._first_within(answers, outcome.work)
            headers = {"content-type": rendering.content_type, "cache-control": "no-cache", **outcome.headers}
            if pieces:
                headers |= _route_header(answers.all[pieces[0].choice])
            await wire.begin(headers, rendering.failure)
            await wire.write(rendering.begin() + rendering.pieces(pieces))
            while not pieces:
                pieces = await self._first_within(answers, outcome.work)
                await wire.write(rendering.pieces(pieces) if pieces else rendering.keep_alive)
            while pieces := await answers.take():
                await wire.write(rendering.pieces(pieces))
            end = rendering.end(answers.all, self._complete(answers, outcome.work))
        await wire.write(end)  # which says what was used: by now that is settled

    @contextlib.asynccontextmanager
    async def _start(self, work: Work) -> AsyncIterator[Answers]:
        """Begin all answers; on leaving, whatever still runs is cancelled on the workers, and the account is closed."""
        try:
            account = await self._context.books.open(self._order(work))
        except Throttled as error:
            if isinstance(error, ReservedTaken):
                raise  # not refused: it is planned again
            self._context.meter.accounts.throttled.labels(work.model.id, self._operation).inc()
            raise
        answers: list[Answer] = []
        account.watch(lambda: (_used(work, answers), [answer.journey() for answer in answers]))
        status = Status.FAILED
        try:
            with contextlib.ExitStack() as stack:
                for choice in work.choices:
                    generation = self._context.dispatcher.start(choice.request, work.forced)
                    stack.callback(generation.close)
                    answers.append(Answer(choice.request, generation, choice.reading(), choice.fills_context))
                yield Answers(answers)
            status = Status.ANSWERED
        except asyncio.CancelledError:
            status = Status.CANCELLED
            raise
        finally:
            await account.close(status, self._said(answers))

    def _said(self, answers: Sequence[Answer]) -> Said | None:
        """What goes into the invocation log, where the operator wants it there."""
        if not self._context.config.invocation_log.prompts:
            return None
        return Said(self._call.body, tuple(answer.text for answer in answers))

    def _order(self, work: Work) -> Order:
        call = self._call
        return Order(
            call.request_id,
            call.tenant,
            call.principal.key_id,
            work.model.id,
            self._operation,
            work.most,
            "" if work.profile is None else work.profile.id,
            tier=work.requests[0].tier,
            latency=work.requests[0].latency,
        )

    async def _first_within(self, answers: Answers, work: Work) -> tuple[Piece, ...]:
        """The first pieces; none if they take longer than a stream's status may be held back."""
        try:
            async with asyncio.timeout(self._context.config.gateway.first_token_timeout_s):
                return await self._first(answers, work)
        except TimeoutError:
            return ()

    async def _first(self, answers: Answers, work: Work) -> tuple[Piece, ...]:
        pieces = await answers.take()
        elapsed_s = self._elapsed_s()
        self._context.meter.first_token(work.model.id, self._operation, elapsed_s)
        profile = work.profile
        if profile is not None and 0 < profile.first_token_ms < elapsed_s * 1000:
            self._context.meter.accounts.late.labels(profile.id).inc()
        return pieces

    def _complete(self, answers: Answers, work: Work) -> int:
        """Account for complete answers; returns the latency in milliseconds."""
        elapsed_s = self._elapsed_s()
        self._context.meter.answered(work.model.id, self._operation, elapsed_s)
        self._context.meter.accounts.served(work.requests[0])
        for answer in answers.all:
            self._context.meter.spent(work.model.id, self._operation, answer)
        return int(elapsed_s * 1000)

    def _elapsed_s(self) -> float:
        return self._context.clock.now() - self._call.arrived_s


def _used(work: Work, answers: Sequence[Answer]) -> Tokens:
    """By all answers together; a prompt that brought forth no token was computed for nobody, and does not count."""
    used = Tokens()
    for choice, answer in zip(work.choices, answers, strict=False):
        tokens = answer.tokens_used
        if choice.shares_prompt:
            used += Tokens(output=tokens.output)
        elif tokens.output:
            used += tokens
    return used


def _route_header(answer: Answer) -> Mapping[str, str]:
    """Which mode served it, and what was predicted of it and of the other; known once its first token arrived."""
    route = answer.generation.route
    headers = {ROUTE_HEADER: route.kind.value}
    for name, estimate in (("predicted", route.estimate), ("instead", route.instead)):
        if estimate is not None:
            headers[f"{ROUTE_HEADER}-{name}"] = (
                f"ttft_ms={estimate.ttft_s * 1e3:.1f}, tpot_ms={estimate.tpot_s * 1e3:.2f}, cost={estimate.cost:.3f}"
            )
    return headers
