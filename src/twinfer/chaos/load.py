"""The load: clients that ask one question after the other, and have every answer judged."""

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import httpx

from twinfer.chaos.client import ask, fresh_salt
from twinfer.chaos.judge import Heard, Judgement, Verdict, judge
from twinfer.chaos.prompts import Question

SHARED = 0.25
"""Share of the requests that may find their prompts in the caches."""
SHARED_SALT = "chaos"
REFUSED_PAUSE_S = (0.2, 0.6)
"""A client that was refused asks again after such a while."""


@dataclass(slots=True, eq=False)
class Answer:
    """One answer on its way.

    Attributes:
        question: its number.
        event: number of the disturbance that it met last; ``None`` if it met none.
        gateway_hit: one of those it met was the gateway's.
    """

    question: int
    event: int | None = None
    gateway_hit: bool = False
    heard: Heard = field(default_factory=Heard)


Judged = Callable[[Answer, Judgement], None]
"""Told of every answer that has come to an end."""


@dataclass(frozen=True, slots=True)
class Exam:
    """Questions with their undisturbed answers, in the same order.

    Attributes:
        model: whom to ask.
        workers: names, of which an error must name one.
    """

    model: str
    questions: Sequence[Question]
    references: Sequence[Heard]
    workers: Collection[str]


class Load:
    """Concurrent clients.

    Args:
        client: to ask with.
        exam: what to ask, and what must come.
        num_clients: how many ask at once.
        seed: of their choices.
        judged: told of every answer.
    """

    def __init__(self, client: httpx.AsyncClient, exam: Exam, num_clients: int, seed: int, judged: Judged) -> None:
        self._client = client
        self._exam = exam
        self._judged = judged
        self._stopping = False
        self._event: int | None = None
        self._gateway_event = False
        self.in_flight: list[Answer] = []
        self._clients = [
            asyncio.create_task(self._ask_on(random.Random(f"{seed}/{index}"))) for index in range(num_clients)
        ]

    def struck(self, event: int, *, gateway: bool) -> int:
        """A disturbance begins: it concerns all answers under way, and those begun until ``calm``.

        Returns how many are under way.
        """
        self._event, self._gateway_event = event, gateway
        for answer in self.in_flight:
            self._concern(answer)
        return len(self.in_flight)

    def calm(self) -> None:
        """The disturbance is over and overcome."""
        self._event, self._gateway_event = None, False

    def check(self) -> None:
        """Raise what a client failed with, if one did: a bug of ours."""
        for client in self._clients:
            if client.done():
                client.result()

    async def finish(self) -> None:
        """Ask nothing more, and hear what is under way to its end."""
        self._stopping = True
        await asyncio.gather(*self._clients)

    async def abandon(self) -> None:
        """Leave at once."""
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _concern(self, answer: Answer) -> None:
        if self._event is not None:
            answer.event = self._event
            answer.gateway_hit = answer.gateway_hit or self._gateway_event

    async def _ask_on(self, dice: random.Random) -> None:
        while not self._stopping:
            answer = Answer(dice.randrange(len(self._exam.questions)))
            self._concern(answer)
            self.in_flight.append(answer)
            salt = SHARED_SALT if dice.random() < SHARED else fresh_salt()
            await ask(self._client, self._exam.model, self._exam.questions[answer.question], salt, answer.heard)
            self.in_flight.remove(answer)
            reference = self._exam.references[answer.question]
            judgement = judge(reference, answer.heard, self._exam.workers, gateway_hit=answer.gateway_hit)
            self._judged(answer, judgement)
            if judgement.verdict not in (Verdict.RIGHT, Verdict.RIGHT_BY_R7):
                await asyncio.sleep(dice.uniform(*REFUSED_PAUSE_S))
