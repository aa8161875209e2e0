"""docs/claims.md says what is computed now, and the claims follow the laws that they have to."""

import pytest
from bench.claims import claims
from bench.claims.leaning import Estimate, Fleet, estimate, leaning
from bench.claims.page import figures, page, verdict
from bench.claims.workloads import WORKLOADS
from bench.closed_form import Load

from tests.bench.pages import DOCS, assert_same
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.profile import PipelineProfile, RooflineProfile

CATALOGUE = Catalogue()
FLEET = Fleet(CATALOGUE)


def test_the_page() -> None:
    """Its words and numbers are those that the command writes."""
    assert_same((DOCS / "claims.md").read_text(), page(CATALOGUE))


def test_the_figures() -> None:
    """One per claim, as the command draws it."""
    drawn = figures(CATALOGUE)
    assert 4 == len(drawn)
    for name, svg in drawn.items():
        assert_same((DOCS / "figures" / name).read_text(), svg)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (Estimate(5, 6, 7), "yes, at either end"),
        (Estimate(4, 5, 7), "yes"),
        (Estimate(3, 4, 5), "at the better end"),
        (Estimate(3, 4, 4.9), "no"),
    ],
)
def test_verdict(times: Estimate, expected: str) -> None:
    """By which of the three values reach the claim."""
    assert expected == verdict(times, 5)


def test_devices_lean_to_the_ends_of_their_numbers() -> None:
    """Fast takes little time and a large share of the peak, slow the opposite, and neither changes what fits."""
    trn3, cs3 = CATALOGUE.device("trn3")[0], CATALOGUE.device("cs3")[0]
    fast, slow = leaning(trn3, "fast"), leaning(cs3, "slow")
    assert isinstance(trn3, RooflineProfile)
    assert isinstance(fast, RooflineProfile)
    assert isinstance(cs3, PipelineProfile)
    assert isinstance(slow, PipelineProfile)
    assert trn3.layer_overhead_s.low == fast.layer_overhead_s.value
    assert [point.high for point in trn3.compute_efficiency] == [point.value for point in fast.compute_efficiency]
    assert (cs3.layer_s.high, cs3.compute_efficiency.low) == (slow.layer_s.value, slow.compute_efficiency.value)
    assert (trn3.memory_bytes, cs3.memory_bytes) == (fast.memory_bytes, slow.memory_bytes)
    assert cs3 is leaning(cs3, "value")


def test_an_estimate_is_in_order() -> None:
    """Whichever end is larger."""
    assert Estimate(1.0, 2.0, 3.0) == estimate(lambda lean: {"slow": 3.0, "value": 2.0, "fast": 1.0}[lean])


def test_speeds_fall_with_context() -> None:
    """Never faster with more of it; the vendor's 3,000 lies in the range, and the independent reading too."""
    found = claims.speeds(FLEET)
    values = [one.tokens_per_s.value for one in found]
    assert sorted(values, reverse=True) == values
    for one in found:
        assert one.tokens_per_s.low < 1706 < 3000 < one.tokens_per_s.high
        assert one.with_handoff.value < one.tokens_per_s.value


def test_no_published_gpu_speed_of_gpt_oss_leaves_fifteen_times() -> None:
    """Not even with the vendor's own figure."""
    published = [gain for gain in claims.decode_gains(FLEET) if gain.published]
    assert 5 == len(published)
    assert 15 > max(gain.times.high for gain in published)


def test_capacity_grows_with_what_prompts_take() -> None:
    """One plus the ratio of busy times: the share that prompts took is ``1 - 1 / times``; more so with cheap tokens."""
    found = {one.workload.name: one for one in claims.capacities(FLEET)}
    for one in found.values():
        assert 1 - 1 / one.times.value == pytest.approx(one.prompt_share)
        assert one.times.value < one.times_batched.value
    assert found["agent, 95 % cached"].times.value < found["agent"].times.value


def test_the_prompt_for_five_times_is_the_shortest() -> None:
    """There it is reached, and with one token less it is not."""
    tokens = claims.prompt_for(FLEET, 5.0, 200)
    wafers = FLEET.wafers(claims.MODEL, claims.PAIR_WAFERS, "mxfp4")
    gains = [
        1 + wafers.prompt_busy_seconds(load) / (200 * wafers.token_busy_seconds(load, 1))
        for load in (Load(tokens - 1, 200), Load(tokens, 200))
    ]
    assert gains[0] < 5.0 <= gains[1]


def test_whole_answers_of_every_workload() -> None:
    """In the order of the workloads; long answers gain more over GPUs than long prompts."""
    found = claims.whole_answers(FLEET)
    assert [one.name for one in WORKLOADS] == [one.workload.name for one in found]
    times = {one.workload.name: one.times["8 B200"].value for one in found}
    assert times["agent"] < times["long conversation"] < times["reasoning"]
