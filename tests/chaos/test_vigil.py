"""Leases that do not end are found, once, and a worker that was stopped has its excuse."""

from twinfer.chaos.vigil import Vigil
from twinfer.chaos.watch import Scrape, Watch


def after(**silence_s: float) -> Scrape:
    """Workers whose peers were not heard of for so long."""
    return Scrape({}, {}, 0, silence_s)


def test_a_lease_that_does_not_end_is_found_once() -> None:
    """Again only when it had been in order meanwhile."""
    found: list[str] = []
    vigil = Vigil(Watch("http://127.0.0.1:1"), 3.0, found.append)
    vigil.look(after(a=2.9, b=0.0), 10.0)
    assert found == []
    for now in (11.0, 12.0):
        vigil.look(after(a=now - 7.5, b=0.0), now)
    assert found == ["a holds something for a peer that was last heard of 3.5 s ago"]
    vigil.look(after(a=0.0, b=0.0), 13.0)
    vigil.look(after(a=3.1, b=3.2), 14.0)
    assert len(found) == 3


def test_a_stopped_worker_is_excused_for_a_while() -> None:
    """It could not do anything, and has a moment to catch up."""
    found: list[str] = []
    vigil = Vigil(Watch("http://127.0.0.1:1"), 3.0, found.append)
    vigil.excuse("a")
    vigil.look(after(a=9.0), 10.0)
    vigil.excuse("a", 12.0)
    vigil.look(after(a=9.0), 11.9)
    assert found == []
    vigil.look(after(a=9.0), 12.0)
    assert len(found) == 1
