"""Costs of links: by source, and slow ones known as such."""

from twinfer.core.ids import WorkerId
from twinfer.handoff.link_fit import LinkFits

NEAR, FAR = WorkerId("near"), WorkerId("far")


def test_each_source_has_its_own_cost() -> None:
    """A fixed time and a time per byte; nothing of one that was hardly used."""
    fits = LinkFits()
    for size in range(1, 60):
        fits.observe(NEAR, size * 1e6, 0.001 + size * 1e6 / 1e9)
    fits.observe(FAR, 1e6, 1.0)
    [(source, cost)] = fits.costs().items()
    assert (source, cost.transfers) == (NEAR, 59)
    assert abs(cost.pace * (cost.fixed_s + 20e6 * cost.byte_s) / 0.021 - 1) < 0.2


def test_a_link_that_slows_down_is_seen() -> None:
    """Ten times slower, within a second of transfers."""
    fits = LinkFits()
    for _ in range(50):
        fits.observe(NEAR, 1e7, 0.01)
    for _ in range(10):
        fits.observe(NEAR, 1e7, 0.1)
    assert fits.costs()[NEAR].pace > 5
