"""Laws of queues and pools in closed form."""

import math

import pytest
from bench.closed_form import Load, Replica, rate_within, waiting_seconds
from hypothesis import given
from hypothesis import strategies as st

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.fit import fit
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement

CATALOGUE = Catalogue()
GPUS = Replica(CATALOGUE.device("h100")[0], load_shape("llama-3.1-70b"), Placement(4, 4, "fp8"))
WAFERS = Replica(CATALOGUE.device("cs3")[0], load_shape("gpt-oss-120b"), Placement(4, precision="mxfp4"))


def test_waiting() -> None:
    """One service when busy two thirds of the time, none when idle, without end when there is too much to do."""
    busy = (0.0, 2 / 3, 1.0)
    assert [0.0, 1.0, math.inf] == pytest.approx([waiting_seconds(share, 1.0) for share in busy])


@given(st.floats(0.01, 10), st.floats(1.01, 50))
def test_the_rate_within_a_limit_meets_it(service: float, times: float) -> None:
    """At that rate wait and service take just as long as the limit allows."""
    limit = service * times
    rate = rate_within(limit, service)
    assert limit == pytest.approx(service + waiting_seconds(rate * service, service))


def test_no_rate_meets_what_one_request_does_not() -> None:
    """A limit below the service itself."""
    assert 0.0 == rate_within(1.0, 2.0)


def test_places_are_what_fits() -> None:
    """So many contexts fit, and one more does not."""
    load = Load(8192, 1024)
    number = GPUS.places(load)
    held, more = ([load.end] * n for n in (number, number + 1))
    assert fit(GPUS.device, GPUS.shape, GPUS.placement, held).fits
    assert not fit(GPUS.device, GPUS.shape, GPUS.placement, more).fits


def test_as_many_run_as_the_limit_per_token_allows() -> None:
    """One more would be too slow; without a limit all that fit; none within no time."""
    load = Load(2048, 256)
    limit = GPUS.token_seconds(load, 20)
    assert 20 == GPUS.running(load, limit)
    assert GPUS.places(load) == GPUS.running(load)
    assert 0 == GPUS.running(load, 1e-6)


def test_cached_tokens_are_not_computed() -> None:
    """A prompt takes less the more of it is there, and its context stays as long."""
    whole, half = Load(8192, 256), Load(8192, 256, cached=4096)
    assert GPUS.prompt_seconds(half) < GPUS.prompt_seconds(whole)
    assert GPUS.token_seconds(half) == GPUS.token_seconds(whole)


def test_a_chunk_lengthens_a_step() -> None:
    """By more the larger it is."""
    load = Load(8192, 256)
    small, large = (GPUS.chunk_seconds(load, chunk) for chunk in (1024, 8192))
    assert GPUS.token_seconds(load) < small < large


def test_wafers_are_busy_for_less_than_a_step_takes() -> None:
    """Four wafers have four steps in flight; a GPU has one."""
    load = Load(1024, 256)
    assert WAFERS.token_seconds(load) / 4 == pytest.approx(WAFERS.token_busy_seconds(load, 1))
    assert GPUS.token_seconds(load) == GPUS.token_busy_seconds(load, 1)
    busy = GPUS.prompt_busy_seconds(load) + 256 * GPUS.token_busy_seconds(load, 8)
    assert busy == GPUS.request_busy_seconds(load, 8)
