"""One chaos run, from the undisturbed answers to the last block.

1. Every question is asked twice, alone and undisturbed; both answers must agree. They are the references.
2. The load begins. Event by event: strike, let it last, heal, and wait until all workers serve again.
3. Within the lease and a second, each surviving worker must have a place for every KV block. All the time, none may
   hold anything for a peer that was not heard of for longer than that.
4. The load ends. Within the same time no worker may hold anything for anybody.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Protocol

import httpx

from twinfer.chaos.client import ask, fresh_salt, open_client
from twinfer.chaos.judge import Ending, Heard, Verdict, judge
from twinfer.chaos.load import Exam, Load
from twinfer.chaos.plan import GATEWAY, Event, Kind
from twinfer.chaos.processes import Processes
from twinfer.chaos.report import Report
from twinfer.chaos.vigil import Vigil
from twinfer.chaos.watch import POLL_S, Accounts, Scrape, Watch
from twinfer.core.errors import ConfigError, TwinferError, WorkerLost

GRACE_S = 1.0
"""Leases are looked at a few times a second."""
WHOLE_S = 180.0
"""Time for a killed process to be started again and to load; past that the deployment did not survive."""


class GiveUp(TwinferError):
    """There is no use in going on; the message is a finding."""


class Audience(Protocol):
    """Whoever is told how it goes."""

    def asked(self, number: int, total: int) -> None:
        """So many of the questions have their references."""
        ...

    def striking(self, number: int, event: Event) -> None:
        """An event begins."""
        ...

    def overcome(self, number: int, event: Event, in_flight: int, recovery_s: float) -> None:
        """The deployment is whole again."""
        ...

    def found(self, sentence: str) -> None:
        """Something that must not be."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How hard, and how long.

    Attributes:
        model: whom to ask.
        lease_s: of the deployment.
        patience_s: silence after which an answer counts as stuck.
        num_clients: how many ask at once.
        seed: of their choices.
        max_s: no event begins later than that.
    """

    model: str
    lease_s: float
    patience_s: float
    num_clients: int
    seed: int
    max_s: float


class ChaosRun:
    """Disturbs one deployment. ``report`` is complete when ``run`` returns, and as far as it got when it raises."""

    def __init__(self, processes: Processes, watch: Watch, settings: Settings, report: Report, audience: Audience):
        self._processes = processes
        self._watch = watch
        self._settings = settings
        self.report = report
        self._audience = audience
        self._workers = frozenset(map(str, processes.record.workers))
        self._pids = processes.pids()
        self._recovered = 0
        self._vigil = Vigil(watch, settings.lease_s + GRACE_S, self._find)

    async def run(self) -> None:
        """All of it.

        Raises:
            ConfigError: the deployment cannot be put to the test, or was ended.
        """
        async with open_client(self._processes.record.url, self._settings.patience_s) as client:
            try:
                references = [await self._reference(client, index) for index in range(len(self.report.questions))]
                await self._under_load(client, references)
            except GiveUp as error:
                self._find(str(error))

    async def _under_load(self, client: httpx.AsyncClient, references: list[Heard]) -> None:
        exam = Exam(self._settings.model, self.report.questions, references, self._workers)
        load = Load(client, exam, self._settings.num_clients, self._settings.seed, self.report.judged)
        vigil = asyncio.create_task(self._vigil.keep())
        try:
            await self._disturb(load)
            await load.finish()
            await self._see_rest()
        finally:
            self._processes.resume()
            vigil.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await vigil
            await load.abandon()

    async def _reference(self, client: httpx.AsyncClient, index: int) -> Heard:
        """The answer to a question without load and disturbance; the same twice."""
        question, settings = self.report.questions[index], self._settings
        answers = (Heard(), Heard())
        for heard in answers:
            await ask(client, settings.model, question, fresh_salt(), heard)
            if heard.ending is not Ending.WHOLE:
                said = heard.refusal.message if heard.refusal else heard.reason
                raise ConfigError(f"undisturbed, the answer to question {index} is already {heard.ending}: {said}")
        judgement = judge(answers[0], answers[1], self._workers, gateway_hit=False)
        if judgement.verdict not in (Verdict.RIGHT, Verdict.RIGHT_BY_R7):
            raise GiveUp(f"undisturbed, question {index} is answered in two ways already: {judgement.reason}")
        self._audience.asked(index + 1, len(self.report.questions))
        return answers[0]

    async def _disturb(self, load: Load) -> None:
        started, scrape = time.monotonic(), await self._watch.scrape()
        self._recovered = scrape.recovered if scrape is not None else 0
        for number, event in enumerate(self.report.plan):
            if time.monotonic() - started > self._settings.max_s:
                return
            await self._traffic(load)
            await asyncio.sleep(event.after_s)
            self._audience.striking(number, event)
            row = self.report.row(event)
            in_flight = load.struck(number, gateway=event.role == GATEWAY)
            recovery_s = await self._strike(load, event)
            load.calm()
            row.events += 1
            row.in_flight += in_flight
            row.slowest_s = max(row.slowest_s, recovery_s)
            self._audience.overcome(number, event, in_flight, recovery_s)

    async def _traffic(self, load: Load) -> None:
        """Return as soon as a client hears an answer."""
        deadline = time.monotonic() + self._settings.patience_s
        while not any(answer.heard.drawn for answer in load.in_flight):
            load.check()
            if time.monotonic() > deadline:
                raise GiveUp(f"no client heard a token within {self._settings.patience_s:g} s without an event")
            await asyncio.sleep(POLL_S / 10)

    async def _strike(self, load: Load, event: Event) -> float:
        """Disturb, heal, and wait; returns how long it took after the disturbance until all served again."""
        processes, target = self._processes, event.target
        try:
            if event.kind is Kind.KILL:
                processes.kill(target)
            elif event.kind in (Kind.PAUSE, Kind.LONG_PAUSE):
                self._vigil.excuse(target)
                processes.stop(target)
                await asyncio.sleep(event.duration_s)
                processes.resume()
                self._vigil.excuse(target, time.monotonic() + GRACE_S)
            else:
                await processes.isolate(target, event.duration_s)
        except WorkerLost as error:
            self._find(f"{event}: {error}")
        since = time.monotonic()
        scrape, recovery_s = await self._settle(load, event, since)
        before, self._recovered = self._recovered, scrape.recovered
        # A gateway that was killed counts from zero again.
        self.report.row(event).recovered += scrape.recovered - (before if scrape.recovered >= before else 0)
        self._note_restarts(event)
        return recovery_s

    async def _settle(self, load: Load, event: Event, since: float) -> tuple[Scrape, float]:
        """Wait until all workers serve, and until the survivors have placed their blocks or should have."""
        killed = event.target if event.kind is Kind.KILL else ""
        accounts, recovery_s = self._accounts(since, killed), -1.0
        while True:
            load.check()
            asked, scrape = time.monotonic(), await self._watch.scrape()
            if scrape is not None:
                for worker, number in accounts.look(scrape, asked, scrape.unplaced).items():
                    self._find(f"{event}: {worker} has {number} blocks in no state {asked - since:.1f} s after it")
            missing = await self._missing(scrape, killed)
            if not missing and recovery_s < 0:
                recovery_s = time.monotonic() - since
            if scrape is not None and not missing and not accounts.open:
                return scrape, recovery_s
            if time.monotonic() - since > WHOLE_S:
                raise GiveUp(f"{event}: not whole again within {WHOLE_S:g} s: {missing or sorted(accounts.open)}")
            await asyncio.sleep(POLL_S)

    async def _missing(self, scrape: Scrape | None, killed: str) -> str:
        """What is not there yet; empty when all serve."""
        if killed and (self._processes.pids()[killed] == self._pids[killed] or not self._processes.is_up(killed)):
            return f"{killed} was not started again"
        if scrape is None:
            return "the gateway does not answer"
        absent = self._workers - set(scrape.blocks)
        return f"{', '.join(sorted(absent))} not reached" if absent else await self._watch.unready()

    def _note_restarts(self, event: Event) -> None:
        before, self._pids = self._pids, self._processes.pids()
        for name, pid in self._pids.items():
            if pid == before[name]:
                continue
            self.report.restarts[name] += 1
            if event.kind is not Kind.KILL or name != event.target:
                self._find(f"{name} died by itself before or during: {event}")

    async def _see_rest(self) -> None:
        """Nothing is asked any more: nobody may hold anything."""
        since = time.monotonic()
        accounts = self._accounts(since)
        while accounts.open:
            asked, scrape = time.monotonic(), await self._watch.scrape()
            if scrape is not None:
                for worker, held in accounts.look(scrape, asked, scrape.unrest).items():
                    self._find(f"{worker} holds {held} {asked - since:.1f} s after the last answer")
            if time.monotonic() - since > WHOLE_S:
                raise GiveUp(f"{', '.join(sorted(accounts.open))} cannot be asked what they hold")
            await asyncio.sleep(POLL_S)

    def _accounts(self, since: float, killed: str = "") -> Accounts:
        """Of the survivors, due after the lease."""
        return Accounts(set(self._workers - {killed}), since + self._settings.lease_s + GRACE_S)

    def _find(self, sentence: str) -> None:
        self.report.findings.append(sentence)
        self._audience.found(sentence)
