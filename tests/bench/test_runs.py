"""Columns of runs give the same times as the catalogue's formulas, one run at a time."""

from dataclasses import replace

import numpy as np
import pytest
from bench.validation.parameters import OF_DEVICES, OF_SERVING, Parameters, with_parameters
from bench.validation.points import POINTS, Point, read
from bench.validation.runs import LINKS, decode_plan, mixed_plan, runs_of, step_seconds

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.roofline import roofline_step_seconds

CATALOGUE = Catalogue()
SOME = read(POINTS, CATALOGUE).points[::40]
OTHERS = Parameters(0.5, 0.9, 0.7, 0.3, 60.0, 0.6, 5e-5, 2e-5, 0.3, 2e-5, 1e-3, 4e-5)


def line_rate(point: Point) -> float:
    """Line rate between the devices of a point."""
    return CATALOGUE.link(LINKS[point.device.name]).line_bytes_per_s.value


@pytest.mark.parametrize("parameters", [Parameters(), OTHERS])
def test_all_at_once_is_one_by_one(parameters: Parameters) -> None:
    """Steps of single tokens and mixed ones, for models, systems, precisions and degrees of all kinds."""
    runs = runs_of(SOME, CATALOGUE)
    for steps, plan_of in ((runs.decode, decode_plan), (runs.mixed, mixed_plan)):
        found = step_seconds(parameters, runs, steps, np.ones(len(SOME)))
        for seconds, point in zip(found, SOME, strict=True):
            profile = with_parameters(point.device, parameters, line_rate(point))
            expected = roofline_step_seconds(profile, point.shape, point.placement, plan_of(point))
            assert expected == pytest.approx(seconds)


def test_sequences_that_wait_take_no_part() -> None:
    """Half of them decoding make a step shorter, unless the arithmetic bounds it."""
    runs = runs_of(SOME, CATALOGUE)
    all_of_them, half = (step_seconds(Parameters(), runs, runs.decode, np.full(len(SOME), n)) for n in (1.0, 0.5))
    assert np.all(half < all_of_them)


def test_a_choice_of_runs() -> None:
    """Every column keeps the chosen ones, in order."""
    runs = runs_of(SOME, CATALOGUE)
    chosen = np.arange(len(SOME)) % 2 == 0
    assert runs.where(chosen).token_s.tolist() == [point.token_s for point in SOME[::2]]
    assert runs.where(chosen).mixed.tokens.tolist() == runs.mixed.tokens[::2].tolist()


def test_parameters_are_of_devices_or_of_serving() -> None:
    """Twelve and four, and nothing of a model."""
    assert (12, 4) == (len(OF_DEVICES), len(OF_SERVING))
    assert "collective_share" in OF_DEVICES
    assert "request_s" in OF_SERVING
    assert replace(Parameters(), ahead=0.3) != Parameters()
