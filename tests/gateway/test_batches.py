"""Writing beside the event loop."""

import asyncio
import logging
import threading
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from twinfer.core.errors import ConfigError
from twinfer.gateway.batches import BatchWriter, Pace, Tally, writing

PROMPT = Pace(period_s=0.001, batch=3, waiting=5)


class Paper:
    """Keeps what is written, unless it is away."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.away = False
        self.tried = threading.Event()
        self.registry = CollectorRegistry()
        self.tally = Tally(
            Counter("items", "Items", ("outcome",), registry=self.registry),
            Gauge("waiting", "Waiting", registry=self.registry),
        )

    def write(self, batch: Sequence[int]) -> None:
        """Keep a batch."""
        self.tried.set()
        if self.away:
            raise ConfigError("the paper is away")
        self.batches.append(list(batch))

    def count(self, outcome: str) -> float:
        """Items of this outcome."""
        return self.registry.get_sample_value("items_total", {"outcome": outcome}) or 0.0


async def test_everything_is_written_in_order_and_once() -> None:
    """In batches of a bounded size, and on the way out what is left."""
    paper = Paper()
    writer = BatchWriter[int]("sheets", paper.write, PROMPT, paper.tally)
    async with writing(writer, 1.0):
        for number in range(5):
            writer.add(number)
    assert paper.batches == [[0, 1, 2], [3, 4]]
    assert (paper.count("written"), paper.count("lost"), writer.waiting) == (5, 0, ())


async def test_what_cannot_be_written_waits(caplog: pytest.LogCaptureFixture) -> None:
    """As long as it takes; that is said once, and that it works again, too."""
    paper = Paper()
    paper.away = True
    writer = BatchWriter[int]("sheets", paper.write, PROMPT, paper.tally)
    with caplog.at_level(logging.WARNING):
        async with writing(writer, 1.0):
            writer.add(1)
            writer.add(2)
            for _ in range(3):
                await asyncio.to_thread(paper.tried.wait)
                paper.tried.clear()
            assert writer.waiting == (1, 2)
            paper.away = False
    assert paper.batches == [[1, 2]]
    assert [record.getMessage() for record in caplog.records] == [
        "sheets cannot be written, and 2 wait: the paper is away",
        "sheets are written again",
    ]


async def test_what_finds_no_room_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """The oldest are kept; what could not be written is still there at the end."""
    paper = Paper()
    paper.away = True
    writer = BatchWriter[int]("sheets", paper.write, PROMPT, paper.tally)
    async with writing(writer, 0.01):
        for number in range(8):
            writer.add(number)
    assert writer.waiting == (0, 1, 2, 3, 4)
    assert (paper.count("written"), paper.count("lost")) == (0, 3)
    assert [record.getMessage() for record in caplog.records if "lost" in record.getMessage()] == [
        "sheets are lost: 5 wait already and cannot be written"
    ]
