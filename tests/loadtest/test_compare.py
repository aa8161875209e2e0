"""What differs beyond noise is found, what does not is not, and other work is refused."""

import msgspec
import pytest

from tests.loadtest.made import failed, records, result, trial
from twinfer.core.errors import ConfigError
from twinfer.loadtest.arrivals import LoadSpec
from twinfer.loadtest.compare import MARGIN, compare, compare_trials
from twinfer.loadtest.work import WorkSpec

REPETITIONS = 20


def test_the_same_twice_is_no_difference():
    """In at least 19 of 20 repetitions."""
    alike = [
        compare_trials(trial(records(150, 2 * seed)), trial(records(150, 2 * seed + 1)), MARGIN, seed)
        for seed in range(REPETITIONS)
    ]
    assert sum(one.verdict == "no difference beyond noise" for one in alike) >= 19


@pytest.mark.parametrize("factor", [1.1, 1 / 1.1])
def test_ten_percent_are_found(factor: float):
    """Slower or faster, in at least 18 of 20 repetitions; never the other way round."""
    word = "slower" if factor > 1 else "faster"
    found = [
        compare_trials(trial(records(150, 2 * seed)), trial(records(150, 2 * seed + 1, factor)), MARGIN, seed).verdict
        for seed in range(REPETITIONS)
    ]
    assert sum(word in one for one in found) >= 18
    assert not any(("faster" if word == "slower" else "slower") in one for one in found)


def test_only_answers_of_both_are_compared():
    """A request that failed in one run has no twin."""
    before, after = records(40, 1), records(40, 2)
    failed(after[3])
    assert 39 == compare_trials(trial(before), trial(after), MARGIN, 0).twins


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"work": WorkSpec(input="512")}, "work.input ('256' and '512')"),
        ({"work": WorkSpec(seed=1)}, "work.seed (0 and 1)"),
        ({"trials": [trial(records(40, 1), LoadSpec(rate=11.0))]}, "load.rate (10.0 and 11.0)"),
    ],
)
def test_other_work_is_refused(other: dict[str, object], named: str):
    """The message names all that was not the same."""
    first = result([trial(records(40, 1))])
    with pytest.raises(ConfigError, match="not the same work") as caught:
        compare(first, msgspec.structs.replace(first, **other))
    assert named in str(caught.value)


def test_another_server_may_be_compared():
    """Its address and its model's name are no work."""
    first = result([trial(records(40, 1))])
    target = msgspec.structs.replace(first.target, url="http://other", model="n")
    assert 40 == compare(first, msgspec.structs.replace(first, target=target)).twins


def test_what_does_not_count_is_refused():
    """Invalid runs, and runs with too little in common."""
    first = result([trial(records(40, 1))])
    with pytest.raises(ConfigError, match=r"second run is invalid .*: late"):
        compare(first, result([trial(records(40, 1), invalid="late")]))
    with pytest.raises(ConfigError, match=r"5 answered requests in common, 20 are needed"):
        compare(first, result([trial(records(5, 1))]))
