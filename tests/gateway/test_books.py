"""One record for each call that went to the workers, whatever became of it, and the same as its client was told."""

import asyncio
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from starlette.types import Message

from tests.gateway.house import EOS, House, chat_body, converse_body, frames, open_house
from tests.gateway.test_app import Client
from twinfer.core.clock import MonotonicClock
from twinfer.core.config import Config, ModelConfig, QuotaConfig
from twinfer.core.errors import EngineFailure
from twinfer.core.ids import TenantId
from twinfer.gateway.books import Books, Order
from twinfer.gateway.fake import FakeDispatcher, Script
from twinfer.gateway.metering import Meter
from twinfer.gateway.models import ModelRegistry, ServedModel
from twinfer.gateway.office import Office, daybook_path, open_office
from twinfer.gateway.quotas import Quotas
from twinfer.gateway.serve import build_app
from twinfer.identity.place import place_of
from twinfer.usage.daybook import Daybook
from twinfer.usage.ledger import Filter, Ledger, total
from twinfer.usage.prices import Price, PriceList
from twinfer.usage.record import Status, Tokens, UsageRecord

pytestmark = pytest.mark.asyncio(loop_scope="module")
MODEL = "twinfer.tiny-v1:0"
NAMES = ("settled", "noted", "open")
PRICES = PriceList((Price(input=Decimal(1), output=Decimal(2)),), "USD")


class Kept:
    """A gateway whose records stay at hand."""

    def __init__(self, house: House, records: list[UsageRecord]) -> None:
        self.house = house
        self.records = records

    def record_of(self, answer: Any) -> UsageRecord:
        """That of a response, the only one."""
        (record,) = [each for each in self.records if each.request_id == answer.headers["x-request-id"]]
        return record


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def kept_house(model: ServedModel) -> AsyncIterator[Kept]:
    """It counts the cached tokens that scripts say, and has prices."""
    records: list[UsageRecord] = []
    office = Office(Books(records.append, PRICES, now=lambda: 1000.5), Meter())
    async with open_house(model, office=office) as house:
        yield Kept(house, records)


@pytest.fixture
def kept(kept_house: Kept) -> Kept:
    """With nothing left of the test before."""
    kept_house.house.reset()
    kept_house.records.clear()
    kept_house.house.says("Hello world", cached_tokens=2)
    return kept_house


async def test_a_record_has_everything(kept: Kept) -> None:
    """Who, what, how, when, and what it cost."""
    answer = await kept.house.http.post(f"/model/{MODEL}/converse", json=converse_body())
    usage = answer.json()["usage"]
    record = kept.record_of(answer)
    tokens = Tokens(usage["inputTokens"], 2, 0, usage["outputTokens"])
    assert record == UsageRecord(
        request_id=answer.headers["x-amzn-requestid"],
        at_ms=1_000_500,
        tenant="default",
        key_id="",
        model=MODEL,
        profile="",
        operation="Converse",
        status=Status.ANSWERED,
        tier="default",
        latency="standard",
        route="disaggregated",
        tokens=tokens,
        prefill_s=0.003,
        decode_s=0.005,
        bytes_moved=1024,
        cost_nano=1000 * (tokens.input + 2 * tokens.output),
    )


async def test_every_door_tells_what_is_in_the_books(kept: Kept) -> None:
    """Whole and streamed, of both APIs, with several choices and several prompts."""
    http = kept.house.http
    converse = await http.post(f"/model/{MODEL}/converse", json=converse_body())
    stream = await http.post(f"/model/{MODEL}/converse-stream", json=converse_body())
    told = [converse.json()["usage"], dict(frames(stream.content))["metadata"]["usage"]]
    for answer, usage in zip((converse, stream), told, strict=True):
        tokens = kept.record_of(answer).tokens
        assert usage["totalTokens"] == tokens.prompt + tokens.output
        names = ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens", "outputTokens")
        assert Tokens(*(usage[name] for name in names)) == tokens
    native = await http.post("/model/meta.llama3-1-8b-instruct-v1:0/invoke", json={"prompt": "hi"})
    counts = [int(native.headers[f"x-amzn-bedrock-{name}-token-count"]) for name in ("input", "cache-read-input")]
    tokens = kept.record_of(native).tokens
    assert counts == [tokens.input, tokens.cache_read]
    for path, body in (
        ("/v1/chat/completions", chat_body(MODEL, n=2)),
        ("/v1/completions", {"model": MODEL, "prompt": ["hello", "fox"], "n": 2}),
    ):
        answer = await http.post(path, json=body)
        usage, tokens = answer.json()["usage"], kept.record_of(answer).tokens
        assert usage["prompt_tokens"] == tokens.prompt
        assert usage["completion_tokens"] == tokens.output
        assert usage["prompt_tokens_details"]["cached_tokens"] == tokens.cache_read
    assert len(kept.records) == 5


async def test_what_never_reached_a_worker_has_no_record(kept: Kept) -> None:
    """Refusals, and operations that generate nothing."""
    await kept.house.http.post(f"/model/{MODEL}/converse", json={})
    await kept.house.http.post("/model/foo.bar/converse", json=converse_body())
    await kept.house.http.post(
        f"/model/{MODEL}/count-tokens", json={"input": {"converse": {"messages": converse_body()["messages"]}}}
    )
    await kept.house.http.get("/v1/models")
    assert kept.records == []


async def test_a_failure_counts_what_came_before_it(kept: Kept) -> None:
    """And nothing where nothing came: not even the prompt."""
    for batches, output in (([], 0), ([[5], [6]], 2)):
        kept.house.plays(Script(batches, failure=EngineFailure("broken")))
        kept.records.clear()
        answer = await kept.house.http.post(f"/model/{MODEL}/converse", json=converse_body())
        assert answer.status_code == 424
        record = kept.record_of(answer)
        assert (record.status, record.tokens.output, record.tokens.prompt > 0) == (Status.FAILED, output, output > 0)


async def test_a_client_that_leaves_has_one_record(model: ServedModel) -> None:
    """Of what it was sent, with its prompt."""
    records, gate = list[UsageRecord](), asyncio.Event()
    dispatcher = FakeDispatcher(lambda request: Script([[5], [6], [EOS]], gates={2: gate}))
    app = build_app(
        Config(model=(ModelConfig(id=MODEL),)),
        ModelRegistry([model]),
        dispatcher,
        office=Office(Books(records.append), Meter()),
    )
    client = Client(app, f"/model/{MODEL}/converse-stream", converse_body())
    while not dispatcher.generations or dispatcher.generations[0].sent < 2:
        await asyncio.sleep(0)
    client.left.set()
    await client.exchange
    (record,) = records
    assert record.status is Status.CANCELLED
    assert record.tokens == Tokens(len(dispatcher.generations[0].request.prompt), 0, 0, 2)


async def test_an_office_writes_to_the_database(model: ServedModel, tmp_path: Any) -> None:
    """All records are there when it is closed; what an earlier one could not write, too."""
    database = tmp_path / "usage.db"
    config, ids = config_at(database), []
    database.mkdir()  # which no database is
    for _ in range(2):
        async with open_office(config) as office, open_house(model, office=office) as house:
            house.says("Hello")
            answer = await house.http.post(f"/model/{MODEL}/converse", json=converse_body())
            ids.append(answer.headers["x-request-id"])
        if database.is_dir():
            database.rmdir()
    assert ids == [row["request_id"] for row in Ledger(place_of(config.identity, {})).rows(Filter())]
    with closing(Daybook(daybook_path(config))) as daybook:
        assert daybook.count() == 0


async def test_the_next_gateway_settles_for_a_killed_one(tmp_path: Path) -> None:
    """One record for each request, open ones as noted; their quota is let go, but for what they had used."""
    config = config_at(tmp_path / "usage.db")
    process = multiprocessing.get_context("spawn").Process(target=be_killed, args=(config,))
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode == -signal.SIGKILL
    for _ in range(2):
        async with open_office(config):
            pass
    rows = Ledger(place_of(config.identity, {})).rows(Filter())
    assert {row["request_id"]: (row["status"], total([row])) for row in rows} == {
        "settled": ("answered", Tokens(5, 0, 0, 2)),
        "noted": ("failed", Tokens(3, 0, 0, 1)),
        "open": ("failed", Tokens()),
    }
    with closing(Daybook(daybook_path(config))) as daybook:
        (standing,) = daybook.standings().values()
        assert (standing.held, standing.charged, daybook.count()) == (0, 7 + 4, 0)
        assert standing.tokens <= 7 + 4


async def test_a_running_gateway_settles_for_a_killed_one(tmp_path: Path) -> None:
    """Nobody has to be started for that."""
    config = config_at(tmp_path / "usage.db")
    async with open_office(config):
        process = multiprocessing.get_context("spawn").Process(target=be_killed, args=(config,))
        process.start()
        async with asyncio.timeout(30):
            while len(rows := list(Ledger(place_of(config.identity, {})).rows(Filter()))) < len(NAMES):
                await asyncio.sleep(0.01)
        process.join()
    assert sorted(row["request_id"] for row in rows) == sorted(NAMES)


def be_killed(config: Config) -> None:
    """Be a gateway that dies with three accounts: one closed, one with news, and one without."""
    books = Books(
        lambda record: None, quotas=Quotas(config.quota, MonotonicClock()), daybook=Daybook(daybook_path(config))
    )

    async def live() -> None:
        settled, noted, _ = [
            await books.open(Order(name, TenantId("acme"), "", MODEL, "Converse", 100)) for name in NAMES
        ]
        settled.watch(lambda: (Tokens(5, 0, 0, 2), ()))
        await settled.close(Status.ANSWERED)
        noted.watch(lambda: (Tokens(3, 0, 0, 1), ()))
        await books.note()
        noted.watch(lambda: (Tokens(3, 0, 0, 2), ()))

    asyncio.run(live())
    os.kill(os.getpid(), signal.SIGKILL)


async def test_what_cannot_be_settled_is_settled_later(tmp_path: Path) -> None:
    """Its hold is given back then, and only then it has a record; who is cancelled while it waits loses nothing."""
    records, daybook = list[UsageRecord](), Daybook(tmp_path / "book", patience_s=0.01)
    patient = Daybook(tmp_path / "book")
    books, waiting = (Books(records.append, daybook=each) for each in (daybook, patient))
    orders = [Order(name, TenantId("acme"), "", MODEL, "Converse", 100) for name in NAMES[:2]]
    account, cancelled = await books.open(orders[0]), await waiting.open(orders[1])
    account.watch(lambda: (Tokens(5, 0, 0, 2), ()))
    keeper = sqlite3.connect(tmp_path / "book")
    keeper.execute("BEGIN IMMEDIATE")
    await account.close(Status.ANSWERED)
    closing_it = asyncio.create_task(cancelled.close(Status.CANCELLED))
    await asyncio.sleep(0)
    closing_it.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing_it
    keeper.close()
    assert (records, held_and_charged(daybook)) == ([], (200, 0))
    await books.note()
    assert ([record.status for record in records], held_and_charged(daybook)) == ([Status.ANSWERED], (100, 7))
    await waiting.note()
    await books.note()
    assert ([record.request_id for record in records], held_and_charged(daybook)) == (list(NAMES[:2]), (0, 7))
    patient.close()
    daybook.close()


def held_and_charged(daybook: Daybook) -> tuple[int, int]:
    """Of the only tenant and model."""
    (standing,) = daybook.standings().values()
    return standing.held, standing.charged


async def test_what_a_stream_used_is_settled_before_it_is_told(model: ServedModel) -> None:
    """A gateway that is killed after the last words has the record that they tell."""
    records = list[UsageRecord]()
    app = build_app(
        Config(model=(ModelConfig(id=MODEL),)),
        ModelRegistry([model]),
        FakeDispatcher(lambda request: Script([[5], [EOS]])),
        office=Office(Books(records.append), Meter()),
    )
    seen = list[bool]()

    class Watching(Client):
        """Looks into the books when it hears what was used."""

        async def _send(self, message: Message) -> None:
            if b"totalTokens" in message.get("body", b""):
                seen.append([record.status for record in records] == [Status.ANSWERED])
            await super()._send(message)

    await Watching(app, f"/model/{MODEL}/converse-stream", converse_body()).exchange
    assert seen == [True]


def config_at(database: Path) -> Config:
    """With a ledger there, and a quota."""
    identity = {"database": f"sqlite:///{database}", "key_file": str(database.with_name("key"))}
    quota = (QuotaConfig(tokens_per_min=1000),)
    return _replaced(Config(model=(ModelConfig(id=MODEL),), quota=quota), identity=identity, usage={"flush_s": 0.01})


def _replaced(config: Config, **tables: dict[str, Any]) -> Config:
    from msgspec.structs import replace

    return replace(config, **{name: replace(getattr(config, name), **values) for name, values in tables.items()})
