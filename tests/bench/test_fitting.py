"""A fit finds parameters from times that were computed with them, and is judged on what it has not seen."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from bench.validation.fitting import errors, fitted, left_out
from bench.validation.parameters import Parameters
from bench.validation.points import POINTS, read
from bench.validation.runs import Runs, runs_of
from bench.validation.serving import latencies

from twinfer.devices.catalogue import Catalogue

POINTS_READ = read(POINTS, Catalogue()).points[::5]
RUNS = runs_of(POINTS_READ, Catalogue())
GROUPS = [point.group for point in POINTS_READ]
TRUE = replace(Parameters(), compute_efficiency=0.55, memory_efficiency=0.7, layer_overhead_s=4e-5, launch_s=5e-5)


def computed(parameters: Parameters) -> Runs:
    """The runs as if they had taken what these parameters give."""
    first, token = latencies(parameters, RUNS)
    return replace(RUNS, first_token_s=first, token_s=token)


def test_parameters_are_found_again() -> None:
    """From 3 % noise and nothing else, the strong ones within 10 %, and times within 2 % in the median."""
    runs = computed(TRUE)
    noise = np.random.default_rng(7).normal(1.0, 0.03, (2, len(GROUPS)))
    found = fitted(replace(runs, first_token_s=runs.first_token_s * noise[0], token_s=runs.token_s * noise[1]), GROUPS)
    for name in ("compute_efficiency", "memory_efficiency", "layer_overhead_s", "launch_s"):
        assert getattr(TRUE, name) == pytest.approx(getattr(found, name), rel=0.1)
    assert 0.02 > np.median(np.abs(errors(found, runs).token))


def test_runs_that_nothing_explains_pull_little() -> None:
    """Times of a tenth of the runs ten times too long change the median error by less than 2 %."""
    runs = computed(TRUE)
    spoilt = np.where(np.arange(len(GROUPS)) % 10 == 0, 10.0, 1.0)
    found = fitted(replace(runs, token_s=runs.token_s * spoilt), GROUPS)
    assert 0.02 > np.median(np.abs(errors(found, runs).token))


def test_a_left_out_group_is_not_seen() -> None:
    """Spoiling a group's times changes its own errors, and the fit that is judged on it not at all."""
    group = ("qwen3-32b", "h100")
    own = np.array([other == group for other in GROUPS])
    spoilt = replace(RUNS, token_s=np.where(own, 3.0 * RUNS.token_s, RUNS.token_s))
    place = sorted(set(GROUPS), key=str).index(group)
    (plain, fits), (after, refits) = left_out(RUNS, GROUPS), left_out(spoilt, GROUPS)
    assert astuple(fits[place]) == astuple(refits[place])
    assert (plain.token[own] + 1.0) / 3.0 == pytest.approx(after.token[own] + 1.0)


def test_others_prompts_lengthen_tokens_or_the_wait() -> None:
    """More of them ahead of a request: a later first token, and faster ones after it."""
    first, token = latencies(Parameters(), RUNS)
    later, faster = latencies(replace(Parameters(), ahead=0.6), RUNS)
    several = (RUNS.running > 1) & (RUNS.waves == 0)
    assert np.all(later[several] > first[several])
    assert np.all(faster[several] <= token[several])
