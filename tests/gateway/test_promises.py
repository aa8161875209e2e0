"""Promised times that cannot be kept."""

import pytest

from twinfer.core.errors import CapacityError
from twinfer.gateway.promises import check_promise


@pytest.mark.parametrize(("promised_s", "foreseen_s"), [(0.0, 1e9), (1.0, None), (1.0, 0.9), (1.0, 1.15)])
def test_what_may_be_kept_is_tried(promised_s: float, foreseen_s: float | None) -> None:
    """Nothing was promised, nothing is known, or the prediction is not that sure."""
    check_promise(promised_s, foreseen_s)


def test_what_cannot_be_kept_is_refused_with_the_time_to_come_back() -> None:
    """That is when what is too much by now will have been worked off."""
    with pytest.raises(
        CapacityError, match=r"would come after 4\.5 s, and this inference profile promises 1 s"
    ) as error:
        check_promise(1.0, 4.5)
    assert 3.5 == error.value.retry_after_s
