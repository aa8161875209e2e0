"""The closed form of a fleet's rate: in proportion to workers and to work, and nothing where a goal cannot be kept."""

from dataclasses import replace

import pytest
from bench.router_cells import FLEETS
from bench.router_rate import LEAST, MAX_ROWS, PIECE_S, enough, usual_rate

from twinfer.core.traces import TraceRequest

CHATS = [TraceRequest(float(n), 1000, 200, (), 1000) for n in range(10)]
H100 = replace(FLEETS["h100"], shapes=(((4, 0, 4),),))


def test_twice_the_workers_bear_twice_the_rate() -> None:
    """Of the same roles in the same shares."""
    few, many = (replace(H100, shapes=(((n, 0, n),),)) for n in (2, 4))
    assert usual_rate(many, CHATS) == pytest.approx(2.0 * usual_rate(few, CHATS))


def test_workers_that_do_both_do_what_is_short() -> None:
    """Beside prompts' own workers they answer."""
    neither, some, more = (
        usual_rate(replace(H100, shapes=((shape,),)), CHATS) for shape in ((4, 0, 0), (4, 2, 0), (4, 4, 0))
    )
    assert 0.0 == neither < some < more


def test_what_takes_longer_bears_less() -> None:
    """Longer prompts, longer answers, and a goal per token that allows no step at all."""
    rate = usual_rate(H100, CHATS)
    assert usual_rate(H100, [replace(one, input_tokens=8000) for one in CHATS]) < rate
    assert usual_rate(H100, [replace(one, output_tokens=4000) for one in CHATS]) < rate
    assert 0.0 == usual_rate(replace(H100, tpot_s=1e-6), CHATS)


def test_a_piece_is_long_enough_in_time_and_number() -> None:
    """At least so many requests, more where they come fast, and more than can be answered at once."""
    urgent, short = replace(H100, tpot_s=0.010), [replace(one, output_tokens=2) for one in CHATS]
    assert LEAST == enough(urgent, [replace(one, input_tokens=50_000) for one in short])
    assert PIECE_S * usual_rate(urgent, short) == pytest.approx(enough(urgent, short), abs=1)
    assert 2.5 * 8 * MAX_ROWS == enough(replace(H100, tpot_s=1.0), [replace(one, output_tokens=9000) for one in CHATS])


def test_a_part_of_a_fleet_has_its_ratios() -> None:
    """Half of the H100s in the same shapes; three and one cannot be halved."""
    half = FLEETS["h100"].part(2)
    assert (((0, 4, 0),), (((2, 0, 2),), ((3, 0, 1),), ((2, 2, 0),))) == (half.whole, half.shapes)
    assert [((2, 0, 0), (0, 0, 1)), ((1, 1, 0), (0, 0, 1)), ((1, 0, 1), (0, 0, 1))] == [
        *FLEETS["wafers"].part(2).shapes
    ]
