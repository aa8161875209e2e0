"""The transfer thread takes what it is given in turn."""

import logging
import threading

import pytest

from twinfer.core.service import Tier
from twinfer.worker.transfers import Transfers

WAIT_S = 30.0


def test_better_ranks_pass_those_that_wait_and_equals_keep_their_order() -> None:
    """What is under way is not interrupted."""
    transfers, order = Transfers(), list[str]()
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        assert go_on.wait(WAIT_S)

    transfers(Tier.FLEX.rank, block)
    assert begun.wait(WAIT_S)
    for name, tier in (("a", Tier.FLEX), ("b", Tier.DEFAULT), ("c", Tier.FLEX), ("d", Tier.PRIORITY)):
        transfers(tier.rank, order.append, name)
    transfers(Tier.FLEX.rank, done.set)
    go_on.set()
    assert done.wait(WAIT_S)
    transfers.close()
    assert ["d", "b", "a", "c"] == order


def test_one_that_fails_does_not_take_others_down(caplog: pytest.LogCaptureFixture) -> None:
    """The log says so."""
    transfers, done = Transfers(), threading.Event()
    with caplog.at_level(logging.ERROR):
        transfers(0, [].pop)
        transfers(0, done.set)
        assert done.wait(WAIT_S)
        transfers.close()
    assert ["a transfer failed"] == [record.message for record in caplog.records]


def test_what_waits_at_the_end_is_dropped() -> None:
    """And so is what comes later."""
    transfers, order = Transfers(), list[int]()
    begun, go_on = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        assert go_on.wait(WAIT_S)

    transfers(0, block)
    assert begun.wait(WAIT_S)
    transfers(0, order.append, 1)
    transfers.drop()
    go_on.set()
    transfers.close()
    transfers(0, order.append, 2)
    assert [] == order
