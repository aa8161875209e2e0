"""What the comparison of fixed roles with moving ones rests on: its load, and simulations that end early."""

import dataclasses

from bench.role_moves import ATTAINED, CASES, LOOK_EVERY, Half, Moved, best, find_rate, load, served

from twinfer.simulator.recorder import Journey, Recorder
from twinfer.simulator.run import simulate

PAIR = dataclasses.replace(CASES["h100"], workers=2)
CROWD = Half(200.0, 1500, 4)
"""Several times as much as one worker's prompts."""


def test_load_is_what_was_asked_for() -> None:
    """Halves follow each other at their rates, are the same again by the same seed, and share no prompt."""
    halves = load((Half(50.0, 1500, 25), Half(80.0, 150, 400)), 20.0, seed=1)
    assert halves == load((Half(50.0, 1500, 25), Half(80.0, 150, 400)), 20.0, seed=1)
    assert halves != load((Half(50.0, 1500, 25), Half(80.0, 150, 400)), 20.0, seed=2)
    for half, begin, rate in zip(halves, (0.0, 20.0), (50.0, 80.0), strict=True):
        assert all(begin < one.arrival_s < begin + 20.0 for one in half)
        assert 0.8 < len(half) / 20.0 / rate < 1.2
    everything = [one.stretches for half in halves for one in half]
    assert len(everything) == len(set(everything))


def test_ends_early_only_without_hope() -> None:
    """A simulation that ends because too few are served well would not have served enough, and it is shorter."""
    requests = CROWD.requests(3.0, 0)
    well = served(PAIR, PAIR.scenario(1), requests)
    assert LOOK_EVERY < len(requests)
    assert 0 < well < len(requests) / 2
    assert well == served(PAIR, PAIR.scenario(1), requests, least=well)
    hoped_for = len(requests) - 50
    assert served(PAIR, PAIR.scenario(1), requests, least=hoped_for) < hoped_for


def test_best_ratio_is_found_from_either_side() -> None:
    """Whichever ratio is tried first, the best one of all is found, with what it serves well."""
    case, requests = dataclasses.replace(CASES["h100"], workers=3), CROWD.requests(1.5, 0)
    well = {ratio: served(case, case.scenario(ratio), requests) for ratio in case.ratios}
    most = max(well, key=well.__getitem__)
    assert [(most, well[most])] * 2 == [best(case, requests, likely) for likely in case.ratios]


def test_rate_that_is_found_is_borne() -> None:
    """At the rate that is found enough requests are served well, though the search began far above it."""
    rate, ratio = find_rate(PAIR, CROWD, 1, 1.0)
    requests = dataclasses.replace(CROWD, rate=rate).requests(1.0, 0)
    assert rate < CROWD.rate
    assert served(PAIR, PAIR.scenario(ratio), requests) >= round(ATTAINED * len(requests))


def test_refused_and_lost_are_told_apart() -> None:
    """503 before the first token is a refusal; what ends otherwise in its middle, or not at all, is lost."""
    ends = [("ok", 0.5), ("no capacity", None), ("rejected", None), ("no capacity", 0.5), ("failed", None), ("", None)]
    journeys = [Journey(0, 0.0, 8, 8, first_token, outcome=outcome) for outcome, first_token in ends]
    run = Moved((1,), Recorder(1.0, journeys=journeys))
    assert (2, 3) == (run.refused, run.lost)


def test_no_request_is_lost_by_a_move() -> None:
    """A fleet under prompts that come at once moves within seconds, and every request ends."""
    case = dataclasses.replace(CASES["h100"], workers=4)
    recorder: Recorder = simulate(case.scenario(1, elastic=True), Half(60.0, 1500, 25).requests(5.0, 0))
    assert 2 == len(recorder.moves)
    assert all(move.took_s is not None and move.took_s < 5.0 for move in recorder.moves)
    assert {"ok"} == {one.outcome for one in recorder.journeys}
