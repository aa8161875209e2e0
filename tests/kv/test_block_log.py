"""The log of a pool's prefix cache: what changed since a number, or everything."""

from twinfer.core.block_events import BlockEvents
from twinfer.kv.block_log import BlockLog

A, B, C = (bytes([letter]) * 16 for letter in b"abc")


def test_changes_since_a_number() -> None:
    """In order; none where there are none."""
    log = BlockLog(8)
    log.stored(A)
    log.stored(B)
    log.gone(A)
    assert log.since(1) == BlockEvents(1, B + A, b"\0\1")
    assert log.since(1).next == 3
    assert log.since(3) == BlockEvents(3)


def test_everything_for_who_is_too_far_behind() -> None:
    """Or ahead, or follows for the first time."""
    log = BlockLog(2)
    for block in (A, B, C):
        log.stored(block)
    whole = BlockEvents(3, A + B + C, everything=True)
    assert [log.since(number) for number in (-1, 0, 4)] == [whole] * 3
    assert whole.next == 3
    assert log.since(1) == BlockEvents(1, B + C, b"\0\0")


def test_a_block_is_there_as_long_as_it_is_in_a_tier() -> None:
    """It comes with the first and goes with the last; what is between changes nothing for those afar."""
    log = BlockLog(8)
    log.stored(A)
    log.stored(A)
    log.gone(A)
    assert log.since(0) == BlockEvents(0, A, b"\0")
    assert log.since(-1) == BlockEvents(1, A, everything=True)
    log.gone(A)
    assert log.since(0) == BlockEvents(0, A + A, b"\0\1")
    assert log.since(-1) == BlockEvents(2, b"", everything=True)
