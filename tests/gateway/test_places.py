"""Who is let in when there is little room, and when the others are told to come back."""

import pytest

from twinfer.core.errors import CapacityError
from twinfer.core.service import Tier
from twinfer.gateway.places import LONGEST_S, Places


def entered(places: Places, tier: Tier, count: int) -> int:
    """How many of so many are let in."""
    for number in range(count):
        try:
            places.enter(tier, 0.0)
        except CapacityError:
            return number
    return count


def refusal(places: Places, tier: Tier, now: float) -> CapacityError:
    """Why no more is let in."""
    with pytest.raises(CapacityError) as refused:
        places.enter(tier, now)
    return refused.value


def test_flex_is_refused_first_and_reserved_has_its_own() -> None:
    """Flex may take its part of the places, others all that are left, and the reserved tier as many again."""
    places = Places(10, 0.5)
    assert [5, 5, 0, 10] == [
        entered(places, tier, 20) for tier in (Tier.FLEX, Tier.DEFAULT, Tier.PRIORITY, Tier.RESERVED)
    ]
    places.leave(Tier.FLEX, 0.0)
    assert [0, 1] == [entered(places, tier, 2) for tier in (Tier.FLEX, Tier.PRIORITY)]


def test_a_single_place_is_for_flex_too() -> None:
    """Nobody is refused on an idle server."""
    assert 1 == entered(Places(1, 0.5), Tier.FLEX, 2)


def test_the_hint_is_when_enough_will_have_left() -> None:
    """At the rate of those that left lately, between bounds."""
    places = Places(100, 0.5)
    assert 80 == entered(places, Tier.DEFAULT, 80)
    said = "This server works on 80 requests, and takes no more of tier flex from 50 on; try again later."
    assert (said, 1.0) == (str(error := refusal(places, Tier.FLEX, 0.0)), error.retry_after_s)
    for number in range(20):
        places.leave(Tier.DEFAULT, number * 0.5)
    assert 5.5 == refusal(places, Tier.FLEX, 10.0).retry_after_s
    assert LONGEST_S == refusal(places, Tier.FLEX, 1e6).retry_after_s
