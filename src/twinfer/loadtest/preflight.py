"""Before the load: is somebody there, do they let us in, and how do they count tokens."""

import asyncio

import msgspec

from twinfer.core.clock import Clock
from twinfer.core.errors import EndpointError
from twinfer.loadtest.api import Question
from twinfer.loadtest.ask import OK, Endpoint, ask
from twinfer.loadtest.http import BadReplyError, Origin, Pool, render
from twinfer.loadtest.record import ErrorKind, Record
from twinfer.loadtest.words import Passage, Writer

PROBE_TOKENS = (64, 576)
"""Lengths of the two prompts that the server is asked to count, in words; the same ones always."""
WORDS_MORE = PROBE_TOKENS[1] - PROBE_TOKENS[0]
PATIENCE_S = 60.0
ADVICE = {
    ErrorKind.UNREACHABLE: "is it started, and is this its address?",
    ErrorKind.TIMEOUT: "it accepts requests and does not answer; is the model loaded?",
    ErrorKind.RUBBISH: "does it speak this API? --api chooses another",
    ErrorKind.REFUSED: "check --model, --api and the key",
    ErrorKind.BROKEN: "does it speak this API? --api chooses another",
}


class _Entry(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Entry]


async def probe(endpoint: Endpoint, writer: Writer, clock: Clock) -> None:
    """Ask two short questions, and set the writer's two numbers by what the server counts, where it counts.

    Raises:
        EndpointError: no answer, or none of this API.
    """
    patient = Endpoint(endpoint.origin, endpoint.api, endpoint.pool, endpoint.sign, min(endpoint.timeout_s, PATIENCE_S))
    counted = []
    for number, words in enumerate(PROBE_TOKENS):
        record = Record(-1, number, 0.0, 0.0)
        text = Writer(0).text(Passage((number,), words, words))
        await ask(patient, Question((text,), 2), record, clock, clock.now())
        if record.error is not None and record.error is not ErrorKind.EMPTY:
            advice = ADVICE.get(record.error, "see the server's log")
            address = f"{endpoint.origin.scheme}://{endpoint.origin.authority}{endpoint.origin.path}{endpoint.api.path}"
            raise EndpointError(f"{address} cannot be measured: {record.error}: {record.message}; {advice}")
        counted.append(record.prompt_tokens)
    few, many = counted
    if few is None or many is None or not 0.1 < (many - few) / WORDS_MORE < 10:
        return  # it does not count, or not what it was sent
    writer.words_per_token = round(WORDS_MORE / (many - few), 4)
    writer.overhead_tokens = round(few - PROBE_TOKENS[0] / writer.words_per_token, 2)


class _Whole:
    """Keeps a short answer."""

    def __init__(self) -> None:
        self.status, self.data = 0, b""

    def head(self, status: int, headers: object) -> None:
        """Status came."""
        self.status = status

    def body(self, data: bytes, at_s: float) -> None:
        """Bytes came."""
        self.data += data


async def first_model(origin: Origin, pool: Pool, headers: dict[str, str]) -> str:
    """The model that the server lists first.

    Raises:
        EndpointError: it lists none.
    """
    whole = _Whole()
    try:
        async with asyncio.timeout(PATIENCE_S):
            connection, _ = await pool.take()
            await connection.exchange(render(origin, "GET", f"{origin.path}/v1/models", headers, b""), whole)
            pool.give(connection)
        if whole.status != OK:
            raise EndpointError(f"{origin.authority} lists no models (HTTP {whole.status}); name one with --model")
        models = msgspec.json.decode(whole.data, type=_Models).data
    except TimeoutError as error:
        raise EndpointError(f"{origin.authority} does not answer within {PATIENCE_S:g} s; is it started?") from error
    except OSError as error:
        raise EndpointError(f"{origin.authority} cannot be reached: {error}; is it started?") from error
    except (BadReplyError, msgspec.DecodeError) as error:
        raise EndpointError(f"{origin.authority} lists its models in no known form; name one with --model") from error
    if not models:
        raise EndpointError(f"{origin.authority} serves no model; name one with --model")
    return models[0].id
