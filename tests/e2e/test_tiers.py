"""Four tiers ask for nearly twice of what there is: who waits, who is sent away, and whether all ends well."""

from pathlib import Path

from bench.tiers import OUTPUT, arrivals, capacity, config, offer

from tests.e2e.deployment import serving
from twinfer.core.service import Tier

PROMPT_TOKENS = 268
"""About the length of the load's prompts: what it is exactly only shifts the overload."""
SECONDS = 14.0
OVERLOAD = 1.75


async def test_an_overload_is_flex_s_to_bear(place: Path) -> None:
    """Urgent tiers hardly wait, flex does and is sent away first and alone, and whatever was taken on is ended."""
    asked = arrivals(capacity("prefill", PROMPT_TOKENS), OVERLOAD, SECONDS, seed=5)
    with serving(place, config("prefill", PROMPT_TOKENS)) as deployment:
        found = await offer(deployment.url, asked, OUTPUT["prefill"])
        deployment.wait_idle()
    for tier, findings in found.items():
        assert (tier, findings.sent) == (tier, len(findings.first) + findings.refused.total())
        assert (tier, 0, 0) == (tier, findings.broken, findings.other)
    flex, default, priority, reserved = (
        found[tier] for tier in (Tier.FLEX, Tier.DEFAULT, Tier.PRIORITY, Tier.RESERVED)
    )
    assert 3 * priority.quantile(0.99) <= flex.quantile(0.99)
    assert 3 * reserved.quantile(0.99) <= flex.quantile(0.99)
    assert {503} == set(flex.refused)
    assert min(flex.hints) >= 1.0
    assert [0, 0, 0] == [findings.refused.total() for findings in (default, priority, reserved)]
    assert len(flex.first) > 0
