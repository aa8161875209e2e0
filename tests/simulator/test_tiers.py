"""Service tiers in virtual time: what an overload does to each of them, on the product's queues."""

from dataclasses import replace

import msgspec
import pytest
from bench.tiers import arrivals

from tests.simulator.small import TOKENS_PER_S, a_config, a_request, a_scenario, unrest
from twinfer.core.config import Config, GatewayConfig, HandoffConfig
from twinfer.core.service import Tier
from twinfer.simulator.run import replay

SECONDS = 100.0
PATIENT = GatewayConfig(max_requests=60, request_timeout_s=10_000.0)


def quick(config: Config) -> Config:
    """Prompts take a tenth of the time: one that gave way is computed again without much ado."""
    pools = tuple(
        msgspec.structs.replace(
            pool, emulation=msgspec.structs.replace(pool.emulation, prefill_tokens_per_s=10 * TOKENS_PER_S)
        )
        for pool in config.pool
    )
    return msgspec.structs.replace(config, pool=pools)


def waits(config: Config, rate: float, prompt_tokens: int, output_tokens: int) -> dict[Tier, tuple[list[float], int]]:
    """Of each tier the times to the first token in order, and how many were refused; all others were answered."""
    asked = [
        replace(a_request(at, prompt_tokens, output_tokens), tier=tier)
        for at, tier in arrivals(rate, 1.8, SECONDS, seed=3)
    ]
    usual = msgspec.structs.replace(config, gateway=PATIENT, handoff=HandoffConfig())
    recorder, cluster = replay(a_scenario(usual), asked)
    found: dict[Tier, tuple[list[float], int]] = {}
    for tier in Tier:
        mine = [journey for journey in recorder.journeys if asked[journey.number].tier is tier]
        refused = [journey for journey in mine if journey.outcome != "ok"]
        times = sorted(journey.ttft_s for journey in mine if journey.outcome == "ok" and journey.ttft_s is not None)
        assert len(mine) == len(times) + len(refused)
        found[tier] = times, len(refused)
    assert [] == unrest(cluster)
    return found


@pytest.mark.parametrize(
    ("config", "rate", "prompt_tokens", "output_tokens"),
    [
        (a_config(kv_mib=4), TOKENS_PER_S / 200, 200, 40),
        (quick(a_config(prefill=2)), 2.0, 1600, 400),
    ],
    ids=["short of prefill", "short of decode"],
)
def test_an_overload_is_flex_s_to_bear(config: Config, rate: float, prompt_tokens: int, output_tokens: int) -> None:
    """Urgent tiers hardly wait and are never refused, flex is, and of those that are let in nobody is forgotten."""
    found = waits(config, rate, prompt_tokens, output_tokens)
    p99 = {tier: times[int(0.99 * len(times))] for tier, (times, _) in found.items()}
    assert 3 * p99[Tier.PRIORITY] <= p99[Tier.FLEX]
    assert 2 * p99[Tier.RESERVED] <= p99[Tier.FLEX]
    assert [0, 0, 0] == [found[tier][1] for tier in (Tier.RESERVED, Tier.PRIORITY, Tier.DEFAULT)]
    assert found[Tier.FLEX][1] > 0
