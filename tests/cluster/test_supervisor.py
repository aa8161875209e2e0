"""The supervisor with real processes: starts together, restarts what dies, stops with patience and without."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.cluster.child_process import Play
from twinfer.cluster.child import Command, Life, describe_exit
from twinfer.cluster.supervisor import FIRST_PAUSE_S, MAX_PAUSE_S, StartError, Supervisor, next_pause_s
from twinfer.core.ids import WorkerId

KEY = bytes(32)


class Told:
    """A reporter that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str]] = []
        self.deaths: list[tuple[str, str]] = []
        self.changed = asyncio.Condition()

    def stage(self, name: str, stage: str) -> None:
        self.stages.append((name, stage))
        self._notify()

    def died(self, name: str, how: str, again_in_s: float) -> None:
        assert 0 < again_in_s <= 10
        self.deaths.append((name, how))
        self._notify()

    async def until_ready(self, name: str, times: int) -> None:
        """Return once it was ready that often."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.stages.count((name, "ready")) >= times)

    def _notify(self) -> None:
        async def wake() -> None:
            async with self.changed:
                self.changed.notify_all()

        self._task = asyncio.ensure_future(wake())


def command(name: str, play: Play) -> Command:
    """A process of tests/cluster/child_process.py."""
    return Command(name, "tests.cluster.child_process", msgspec.json.encode(play))


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    """A supervisor whose children are gone afterwards."""
    supervisor = Supervisor(KEY, Told())
    yield supervisor
    pids = supervisor.pids
    await supervisor.stop(list(pids), 5.0)
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def told(supervisor: Supervisor) -> Told:
    """Its reporter."""
    reporter = supervisor._reporter
    assert isinstance(reporter, Told)
    return reporter


async def test_starts_together_and_reports_stages(supervisor: Supervisor) -> None:
    """Returns when all are ready; what they do is passed on."""
    await supervisor.start([command("a", Play()), command("b", Play(chatter="not a notice"))])
    assert {("a", "loading"), ("a", "ready"), ("b", "loading"), ("b", "ready")} == set(told(supervisor).stages)
    assert len(set(supervisor.pids.values())) == 2


async def test_a_child_does_not_inherit_what_is_withheld(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the key of a database that is not its business."""
    monkeypatch.setenv("A_SECRET", "hush")
    await supervisor.start([replace(command("a", Play()), withheld=("A_SECRET",)), command("b", Play())])
    seen = {name: Path(f"/proc/{pid}/environ").read_bytes() for name, pid in supervisor.pids.items()}
    assert {name: b"A_SECRET=hush" in text for name, text in seen.items()} == {"a": False, "b": True}


async def test_a_child_that_cannot_start_ends_the_start_with_its_reason(supervisor: Supervisor) -> None:
    """Its own sentence, not a stack trace."""
    with pytest.raises(StartError, match=r"^the moon is wrong$"):
        await supervisor.start([command("a", Play()), command("b", Play(error="the moon is wrong"))])


async def test_what_dies_is_started_again_and_it_is_said_so(supervisor: Supervisor) -> None:
    """As often as it dies, with another process id."""
    await supervisor.start([command("a", Play()), command("b", Play())])
    first = supervisor.pids
    for times in (2, 3):
        os.kill(supervisor.pids["a"], signal.SIGKILL)
        await told(supervisor).until_ready("a", times)
    assert told(supervisor).deaths == [("a", "was killed by SIGKILL")] * 2
    assert first["a"] != supervisor.pids["a"]
    assert first["b"] == supervisor.pids["b"]


def test_pauses_grow_only_for_what_fails_early() -> None:
    """Killed in service, however often: at once. At loading, or before it served as long as it had loaded: slower."""
    assert next_pause_s(0.0, Life(starting_s=0.5, serving_s=1.1)) == FIRST_PAUSE_S
    assert next_pause_s(6.4, Life(starting_s=3.0, serving_s=3.1)) == FIRST_PAUSE_S
    pauses, pause_s = [], 0.0
    for life in (Life(0.5, 0.9), Life(0.5, 0.0), Life(9.0, 8.0), *[Life(0.1, 0.0)] * 6):
        pause_s = next_pause_s(pause_s, life)
        pauses.append(pause_s)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, MAX_PAUSE_S, MAX_PAUSE_S]


async def test_killed_children_end_the_stop_at_once(supervisor: Supervisor) -> None:
    """Whoever does not want to wait for a drain ends it, and nothing is started again."""
    await supervisor.start([command("a", Play(deaf=True)), command("b", Play())])
    stopping = asyncio.create_task(supervisor.stop(["a", "b"], patience_s=60.0))
    await asyncio.sleep(0)
    supervisor.kill()
    async with asyncio.timeout(10.0):
        await stopping
    assert told(supervisor).deaths == []


async def test_a_deaf_child_is_killed_in_the_end(supervisor: Supervisor) -> None:
    """Stopping is asked for first, and enforced after the given patience."""
    await supervisor.start([command("a", Play(deaf=True))])
    pid = supervisor.pids["a"]
    await supervisor.stop(["a"], patience_s=0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("play", [Play(leaves=0), Play(leaves=3), Play(deaf=True)], ids=["leaves", "dies", "stays"])
async def test_what_retires_is_gone_and_nobody_else(supervisor: Supervisor, play: Play) -> None:
    """By itself when it has left, whatever it dies of, or by force; it is not started again, and the others are."""
    await supervisor.start([command("a", play), command("b", Play())])
    pid = supervisor.pids["a"]
    await supervisor.retire(["a"], within_s=0.0 if play.deaf else 60.0, patience_s=0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert list(supervisor.pids) == ["b"]
    os.kill(supervisor.pids["b"], signal.SIGKILL)
    await told(supervisor).until_ready("b", 2)
    assert told(supervisor).deaths == [("b", "was killed by SIGKILL")]


async def test_what_is_started_again_may_be_something_else(supervisor: Supervisor) -> None:
    """A command that was amended counts from the next start on."""
    await supervisor.start([command("a", Play())])
    supervisor.amend(command("a", Play(reaches=(WorkerId("w"),))))
    os.kill(supervisor.pids["a"], signal.SIGKILL)
    await told(supervisor).until_ready("a", 2)
    assert (supervisor.child("a").reaches, supervisor.child("a").serves) == ({"w"}, True)


def test_exits_are_described_in_words() -> None:
    """A code, or a signal's name."""
    expected = ["ended with exit code 2", "was killed by SIGKILL", "was killed by signal 99"]
    assert expected == [describe_exit(code) for code in (2, -9, -99)]
