"""Quotas: reserved by the most that a request may use, settled by what it used, whichever gateway it came to."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import ManualClock
from tests.gateway.house import EOS, House, chat_body, converse_body, open_house
from twinfer.core.config import Config, ModelConfig, QuotaConfig
from twinfer.core.errors import Throttled
from twinfer.core.ids import TenantId
from twinfer.core.service import Tier
from twinfer.gateway.books import Books, Order
from twinfer.gateway.fake import Script
from twinfer.gateway.metering import Meter
from twinfer.gateway.models import ServedModel
from twinfer.gateway.office import Office
from twinfer.gateway.quotas import Quotas
from twinfer.usage.daybook import Daybook, Hold

ACME, BETA = TenantId("acme"), TenantId("beta")
MODEL = "twinfer.tiny-v1:0"


class Gateway:
    """One gateway's quotas over a day book that others may have, too."""

    def __init__(self, rules: Sequence[QuotaConfig], clock: ManualClock, daybook: Daybook | None = None) -> None:
        self.daybook = daybook or Daybook()
        self._quotas = Quotas(rules, clock)

    def reserve(self, most: int, tier: Tier = Tier.DEFAULT, tenant: TenantId = ACME, model: str = "m") -> Hold:
        """Begin a request."""
        with self.daybook.page() as page:
            return self._quotas.reserve(page, tenant, model, tier, most)

    def settle(self, hold: Hold, charged: int) -> None:
        """End it."""
        with self.daybook.page() as page:
            self._quotas.settle(page, hold, charged)

    def has_reserved(self, most: int) -> bool:
        """Whether so much of the reserved tier's share is left."""
        with self.daybook.page() as page:
            return self._quotas.has_reserved(page, ACME, "m", most)

    def throttled(self, most: int) -> float:
        """Seconds after which it may be worth to come again."""
        with pytest.raises(Throttled) as refused:
            self.reserve(most)
        return refused.value.retry_after_s


def test_a_reservation_is_settled_by_what_was_used() -> None:
    """What is given back can be used at once, and what was used comes back in a minute."""
    clock = ManualClock()
    gateway = Gateway([QuotaConfig(tokens_per_min=600)], clock)
    first = gateway.reserve(500)
    assert gateway.throttled(200) == pytest.approx(10)
    gateway.settle(first, 50)
    second = gateway.reserve(550, Tier.FLEX)
    assert gateway.throttled(1) == pytest.approx(0.1)
    gateway.settle(second, 550)
    clock.advance(10)
    gateway.reserve(100, Tier.PRIORITY)
    assert gateway.throttled(1) > 0


def test_each_tenant_and_model_has_its_own() -> None:
    """The first rule that fits decides; without one there is no bound."""
    rules = [QuotaConfig(tenant="acme", model="m", requests_per_min=1), QuotaConfig(tenant="a*", tokens_per_min=5)]
    gateway = Gateway(rules, ManualClock())
    gateway.reserve(10**9)
    assert gateway.throttled(1) == pytest.approx(60)
    gateway.reserve(5, model="n")
    gateway.reserve(5, tenant=TenantId("also"), model="n")
    for _ in range(100):
        gateway.reserve(10**9, tenant=BETA)


def test_the_reserved_tier_has_its_own_share() -> None:
    """It is not touched by the others, and says when it is used up."""
    gateway = Gateway([QuotaConfig(tokens_per_min=10, reserved_tokens_per_min=10)], ManualClock())
    gateway.reserve(10)
    assert gateway.has_reserved(10)
    gateway.reserve(10, Tier.RESERVED)
    assert not gateway.has_reserved(1)
    assert not Gateway([], ManualClock()).has_reserved(1)


def test_more_than_a_minute_holds_is_said() -> None:
    """Waiting would not help."""
    gateway = Gateway([QuotaConfig(tokens_per_min=10)], ManualClock())
    with pytest.raises(Throttled, match="may use 11, of 10 in a minute: lower its max tokens"):
        gateway.reserve(11)


def test_a_clock_that_begins_anew_stops_nothing() -> None:
    """The machine was started again: the bucket fills from where it was."""
    gateway = Gateway([QuotaConfig(tokens_per_min=60)], ManualClock(1e6))
    gateway.reserve(60)
    clock = ManualClock()
    again = Gateway([QuotaConfig(tokens_per_min=60)], clock, gateway.daybook)
    assert again.throttled(30) == pytest.approx(30)
    again.settle(Hold(ACME, "m", 0), 0)
    clock.advance(30)
    again.reserve(30)


requests = st.tuples(st.integers(0, 2), st.integers(1, 120), st.floats(0, 1), st.floats(0, 30), st.booleans())


@given(st.lists(requests, max_size=60))
def test_no_minute_has_more_than_two_fillings(requests: list[tuple[int, int, float, float, bool]]) -> None:
    """Over any number of gateways, each of which has settled or still holds what it let in: what was let in within a
    minute is at most what was there and what came in. And whatever they do, held and charged are what they did."""
    clock, daybook = ManualClock(), Daybook()
    gateways = [Gateway([QuotaConfig(tokens_per_min=120)], clock, daybook) for _ in range(3)]
    used, held = list[tuple[float, int]](), 0
    for number, most, share, pause_s, ends in requests:
        clock.advance(pause_s)
        try:
            hold = gateways[number].reserve(most)
        except Throttled:
            continue
        charged = int(most * share) if ends else 0
        if ends:
            gateways[number - 1].settle(hold, charged)  # as one that inherits it
        else:
            held += most
        used.append((clock.now(), charged if ends else most))
        standing = daybook.standings()[ACME, "m"]
        assert (standing.held, standing.charged) == (held, sum(amount for _, amount in used) - held)
    for begin, _ in used:
        assert sum(amount for at, amount in used if begin <= at < begin + 60) <= 240


def test_without_a_bound_it_is_counted() -> None:
    """For whoever asks what tenants use."""
    gateway = Gateway([], ManualClock())
    gateway.settle(gateway.reserve(10), 4)
    gateway.reserve(5)
    standing = gateway.daybook.standings()[ACME, "m"]
    assert (standing.held, standing.charged) == (5, 4)


class Bounded:
    """A gateway with a quota, whose clock stands still."""

    def __init__(self, house: House, clock: ManualClock) -> None:
        self.house = house
        self.clock = clock


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bounded_house(model: ServedModel) -> AsyncIterator[Bounded]:
    """100 tokens and any number of requests in a minute, and 80 reserved ones."""
    config = Config(model=(ModelConfig(id=model.id),))
    clock, meter = ManualClock(), Meter()
    quotas = Quotas([QuotaConfig(tokens_per_min=100, reserved_tokens_per_min=80)], clock)
    office = Office(Books(quotas=quotas, charge=meter.accounts.charge), meter)
    async with open_house(model, config, office=office) as house:
        yield Bounded(house, clock)


@pytest.fixture
def bounded(bounded_house: Bounded) -> Bounded:
    """With full buckets, and answers of a few tokens."""
    bounded_house.house.reset()
    bounded_house.clock.advance(60)
    bounded_house.house.says("Hello", cached_tokens=4)
    return bounded_house


PATH = f"/model/{MODEL}/converse"


def asking(max_tokens: int, **fields: Any) -> dict[str, Any]:
    """A request that may use so many output tokens."""
    return converse_body(inferenceConfig={"maxTokens": max_tokens}, **fields)


@pytest.mark.asyncio(loop_scope="module")
async def test_over_the_quota_is_429(bounded: Bounded) -> None:
    """In either API's words with its headers, until what runs is settled; what was read from a cache is free."""
    http, gate = bounded.house.http, asyncio.Event()
    bounded.house.plays(Script([[5], [EOS]], gates={1: gate}, cached_tokens=4))
    running = asyncio.create_task(http.post(PATH, json=asking(60)))
    while not bounded.house.dispatcher.generations:
        await asyncio.sleep(0.001)
    prompt = len(bounded.house.dispatcher.generations[0].request.prompt)
    refused = await http.post(PATH, json=asking(60))
    assert (refused.status_code, refused.headers["x-amzn-errortype"]) == (429, "ThrottlingException")
    assert refused.json()["message"].startswith("Too many tokens")
    wait_s = (2 * (prompt + 60) - 100) * 0.6
    assert int(refused.headers["retry-after-ms"]) == pytest.approx(wait_s * 1000, abs=1)
    assert int(refused.headers["x-amz-retry-after"]) == pytest.approx(wait_s * 1000, abs=1)
    chat = await http.post("/v1/chat/completions", json=chat_body(MODEL, max_tokens=60))
    assert (chat.status_code, chat.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert len(bounded.house.dispatcher.generations) == 1
    gate.set()
    assert (await running).status_code == 200
    left = 100 - (prompt - 4 + 2)
    bounded.house.says("Hello")
    assert (await http.post(PATH, json=asking(left - prompt + 1))).status_code == 429
    assert (await http.post(PATH, json=asking(left - prompt))).status_code == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_reserved_runs_over_into_default(bounded: Bounded) -> None:
    """It is told which it got; both count as they were served."""
    http, tiers = bounded.house.http, []
    for _ in range(2):
        answer = await http.post(PATH, json=asking(60, serviceTier={"type": "reserved"}))
        tiers.append(answer.json()["serviceTier"]["type"])
    assert tiers == ["reserved", "reserved"]
    chat = await http.post("/v1/chat/completions", json=chat_body(MODEL, max_tokens=80, service_tier="scale"))
    assert chat.json()["service_tier"] == "default"
    metrics = (await http.get("/metrics")).text
    assert f'twinfer_gateway_downgrades_total{{model_id="{MODEL}",reason="reserved_used_up"}} 1.0' in metrics
    assert f'twinfer_gateway_served_total{{latency="standard",model_id="{MODEL}",tier="reserved"}} 2.0' in metrics


class Hasty(Books):
    """A gateway's, between whose look at the reserved share and whose taking of it another gateway takes it."""

    async def has_reserved(self, tenant: TenantId, model: str, most: int) -> bool:
        """As it was."""
        found = await super().has_reserved(tenant, model, most)
        if found:
            await self.open(Order("another", tenant, "", model, "Converse", 80, tier=Tier.RESERVED))
        return found


@pytest.mark.parametrize("api", ["bedrock", "openai"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_reserved_share_that_goes_meanwhile_refuses_nobody(model: ServedModel, api: str) -> None:
    """It is served as default, as if it had come a moment later, and says so; nothing counts as throttled."""
    quotas = Quotas([QuotaConfig(tokens_per_min=1000, reserved_tokens_per_min=80)], ManualClock())
    async with open_house(model, office=Office(Hasty(quotas=quotas), Meter())) as house:
        house.says("Hello")
        if api == "bedrock":
            answer = await house.http.post(PATH, json=asking(60, serviceTier={"type": "reserved"}))
            told = answer.json()["serviceTier"]["type"]
        else:
            body = chat_body(MODEL, max_tokens=60, service_tier="scale")
            answer = await house.http.post("/v1/chat/completions", json=body)
            told = answer.json()["service_tier"]
        metrics = (await house.http.get("/metrics")).text
    assert (answer.status_code, told) == (200, "default")
    assert "twinfer_gateway_throttled_total{" not in metrics


@pytest.mark.asyncio(loop_scope="module")
async def test_failures_and_cancels_give_back(bounded: Bounded) -> None:
    """What brought forth nothing is not charged."""
    http = bounded.house.http
    bounded.house.plays(Script([], failure=Throttled("an engine's own")))
    for _ in range(5):
        assert (await http.post(PATH, json=asking(80))).status_code == 429
    bounded.house.says("Hello")
    assert (await http.post(PATH, json=asking(80))).status_code == 200
