"""Ask one question and note all that is heard, with the moment at which it came."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from twinfer.core.clock import Clock
from twinfer.loadtest.api import Api, Question, Reader, RubbishError
from twinfer.loadtest.http import BadReplyError, Origin, Pool, render
from twinfer.loadtest.record import ErrorKind, Record

OK = 200
MAX_REFUSAL_BYTES = 4000

Sign = Callable[[str, Mapping[str, str], bytes], Mapping[str, str]]
"""Path, headers to sign and body of a POST to the headers it goes out with."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
        origin: the server.
        api: its dialect.
        pool: connections to it.
        sign: puts keys or signatures on requests.
        timeout_s: the longest that an answer may take, connecting included.
    """

    origin: Origin
    api: Api
    pool: Pool
    sign: Sign
    timeout_s: float


class Listener:
    """Takes in one answer.

    Args:
        reader: of the dialect.
        record: where moments and errors go.
        begun_s: the moment of the clock at which the request began.
    """

    def __init__(self, reader: Reader, record: Record, begun_s: float) -> None:
        self._reader = reader
        self._record = record
        self._begun_s = begun_s
        self._status = 0
        self._refusal = b""

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Status and headers came."""
        self._status = status
        self._record.route = headers.get("x-twinfer-route", "")

    def body(self, data: bytes, at_s: float) -> None:
        """All that one read of the socket brought."""
        if self._status != OK:
            self._refusal += data[:MAX_REFUSAL_BYTES]
            return
        if self._record.error is not None:
            return
        before = len(self._reader.heard.text)
        try:
            self._reader.feed(data)
        except RubbishError as error:
            self._record.fail(ErrorKind.RUBBISH, str(error))
            return
        if pieces := len(self._reader.heard.text) - before:
            self._record.arrivals_us.append(round((at_s - self._begun_s) * 1e6))
            self._record.pieces += pieces

    def ended(self) -> None:
        """The answer came to an end of its own: judge it."""
        record, heard = self._record, self._reader.heard
        record.characters = sum(map(len, heard.text))
        record.prompt_tokens, record.output_tokens = heard.prompt_tokens, heard.output_tokens
        record.finish, record.route = heard.finish, heard.route or record.route
        if self._status != OK:
            said = self._refusal.decode(errors="replace")
            record.fail(ErrorKind.REFUSED, f"HTTP {self._status}: {said}")
        elif heard.failure:
            record.fail(ErrorKind.FAILED, heard.failure)
        elif not heard.ended and not heard.finish:
            record.fail(ErrorKind.BROKEN, "the stream ended before the answer did")
        elif not record.arrivals_us:
            record.fail(ErrorKind.EMPTY, f"an answer without text, finish reason {heard.finish or 'none'}")


async def ask(endpoint: Endpoint, question: Question, record: Record, clock: Clock, start_s: float) -> str:
    """Ask, and fill in the record to whatever end; returns the answer's text.

    Args:
        endpoint: whom.
        question: what.
        record: ``due_s`` is set.
        clock: for all moments.
        start_s: the moment of the clock at which the run began.
    """
    reader = endpoint.api.reader()
    body, path = endpoint.api.body(question), endpoint.origin.path + endpoint.api.path
    request = render(endpoint.origin, "POST", path, endpoint.sign(path, HEADERS, body), body)
    before_s = clock.now()
    try:
        async with asyncio.timeout(endpoint.timeout_s):
            connection, record.connect_s = await endpoint.pool.take()
            begun_s = clock.now() - record.connect_s
            record.sent_s = begun_s - start_s
            record.lag_s = max(0.0, record.sent_s - record.due_s)
            listener = Listener(reader, record, begun_s)
            await endpoint.pool.exchange(connection, request, listener)
            listener.ended()
    except TimeoutError:
        record.fail(ErrorKind.TIMEOUT, f"no whole answer within {endpoint.timeout_s:g} s")
    except BadReplyError as error:
        record.fail(ErrorKind.RUBBISH, f"no HTTP: {error}")
    except OSError as error:
        kind = ErrorKind.BROKEN if record.sent_s else ErrorKind.UNREACHABLE
        record.fail(kind, str(error) or type(error).__name__)
    if not record.sent_s:
        record.sent_s = before_s - start_s
        record.lag_s = max(0.0, record.sent_s - record.due_s)
    record.end_s = clock.now() - start_s
    return "".join(reader.heard.text)


HEADERS = {"content-type": "application/json", "accept": "*/*"}
