"""Objectives, the search for a rate, costs, and when the client was too slow."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loadtest.made import failed, records
from twinfer.core.errors import ConfigError
from twinfer.loadtest.lag import Lag, lag_of
from twinfer.loadtest.prices import Prices, costs, read_prices
from twinfer.loadtest.record import Record
from twinfer.loadtest.slo import Objectives, RateSearch
from twinfer.loadtest.summary import summarise


def test_what_a_good_request_keeps():
    """Every limit that is asked for; a failed one keeps nothing, and what does not apply is kept."""
    record = Record(0, 0, 0.0, 0.0, arrivals_us=[100_000, 150_000, 200_000], pieces=3, end_s=0.3)
    assert (True, False) == (Objectives(ttft_s=0.1).kept(record), Objectives(ttft_s=0.09).kept(record))
    assert (True, False) == (Objectives(tpot_s=0.05).kept(record), Objectives(tpot_s=0.04).kept(record))
    assert (True, False) == (Objectives(e2e_s=0.3).kept(record), Objectives(e2e_s=0.2).kept(record))
    assert Objectives(tpot_s=0.001).kept(Record(0, 0, 0.0, 0.0, arrivals_us=[1], pieces=1))
    assert not Objectives().kept(failed(record))


@given(capacity=st.floats(0.02, 5000), start=st.floats(0.1, 100))
def test_the_highest_rate_is_found(capacity: float, start: float):
    """The search ends below the server's capacity and within 5 % of it, if trials suffice."""
    search = RateSearch(start, max_trials=60)
    while (rate := search.next_rate()) is not None:
        search.tell(rate, held=rate <= capacity)
    assert search.best is not None
    assert capacity / 1.0501 <= search.best <= capacity


def test_a_search_that_finds_nothing():
    """It gives up after so many trials."""
    search = RateSearch(8.0, max_trials=5)
    while (rate := search.next_rate()) is not None:
        search.tell(rate, held=False)
    assert ([8.0, 4.0, 2.0, 1.0, 0.5], None) == ([rate for rate, _ in search.tried], search.best)


def test_a_rate_that_held_above_one_that_did_not():
    """Luck is not counted."""
    search = RateSearch(1.0)
    for rate, held in ((1.0, True), (2.0, False), (4.0, True)):
        search.tell(rate, held=held)
    assert 1.0 == search.best


def test_costs_by_the_hour_and_by_the_token():
    """Money and energy over tokens."""
    hourly = costs(Prices(per_hour=7.2, power_w=500.0), 100.0, 3000, 1000)
    assert hourly is not None
    assert (200.0, 50.0, 50.0) == pytest.approx(
        (hourly.per_million_output, hourly.per_million_tokens, hourly.joule_per_output_token)
    )
    listed = costs(Prices(per_million_input=1.0, per_million_output=4.0), 100.0, 3000, 1000)
    assert listed is not None
    assert (7.0, 1.75) == pytest.approx((listed.per_million_output, listed.per_million_tokens))
    assert listed.joule_per_output_token is None
    assert costs(Prices(per_hour=1.0), 100.0, 10, 0) is None


@pytest.mark.parametrize("text", ["per_hour = -1", "per_day = 3", "per_hour = 'much'", "per_hour ="])
def test_bad_prices(tmp_path: Path, text: str):
    """The file is named."""
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"p\.toml"):
        read_prices(path)


def test_a_summary_of_good_and_bad():
    """Errors are counted by kind and have no latency; the warm-up counts for nothing."""
    some = records(30, 1)
    for record in some[:10]:
        record.warmup = True
    failed(some[12])
    found = summarise(some, Objectives(e2e_s=1e6), None, 0)
    assert found.ttft is not None
    assert found.attained is not None
    assert (20, {"refused": 1}, 0.05, 19) == (found.requests, found.errors, found.error_share, found.ttft.count)
    assert (0.95, 19 * 8, {"aggregated": 19}) == (found.attained.value, found.output_tokens, found.routes)
    assert found.requests_per_s == pytest.approx(19 / found.duration_s)
    empty = summarise([], Objectives(), None, 0)
    assert (0, None, 0.0) == (empty.requests, empty.ttft, empty.requests_per_s)


def test_the_clients_lag():
    """The worse of sending and of the loop decides, and the sentence says which."""
    late = [Record(number, 0, 0.0, 0.0, lag_s=0.001 * number) for number in range(101)]
    found = lag_of(late, [0.002] * 50, 0.5)
    assert (0.050, 0.099, 0.100, 0.002) == pytest.approx(
        (found.send_p50_s, found.send_p99_s, found.send_max_s, found.loop_p99_s)
    )
    assert "requests were sent 99.0 ms late" in found.complaint(0.01)
    assert "event loop was 30.0 ms late" in Lag(send_p99_s=0.002, loop_p99_s=0.03).complaint(0.01)
    assert "" == found.complaint(0.1)
