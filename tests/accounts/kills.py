"""Kills of workers and gateways, one after the other, and a watch over a run that does not come to its end."""

import contextlib
import faulthandler
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from tests.e2e import processes
from tests.e2e.deployment import Deployment

WORKERS = ("prefill-0", "prefill-1", "decode-0", "decode-1")
SILENCE_S = 120.0
"""Without any news of a deployment: then something hangs, since somebody is killed all the time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen: at least so many requests, and more until there was a kill of each kind; of kills at most so
    many, since they end with the questions."""

    requests: int
    worker_kills: int
    gateway_kills: int
    clients: int = 12
    seed: int = 0


class Killer:
    """Kills one after the other, each time as soon as the last victim is there again.

    Attributes:
        killed: kinds of whom it killed so far.
    """

    def __init__(self, deployment: Deployment, plan: Plan) -> None:
        self.killed: list[str] = []
        self._deployment = deployment
        self._draw = random.Random(plan.seed)
        self._kinds = ["worker"] * plan.worker_kills + ["gateway"] * plan.gateway_kills
        self._draw.shuffle(self._kinds)
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._kill_all)
        self._thread.start()

    def has_enough(self) -> bool:
        """Whether there was a kill of each kind, or there will be no more."""
        return set(self._kinds) <= set(self.killed) or not self._thread.is_alive()

    def stop(self) -> None:
        """No more, once the last victim is there again."""
        self._enough.set()
        self._thread.join()

    def _kill_all(self) -> None:
        for kind in self._kinds:
            if self._enough.wait(self._draw.uniform(0.1, 0.8)):
                return
            name, said = self._kill_one(kind)
            self.killed.append(kind)
            self._deployment.output.wait_for(rf"{name}: ready", said)

    def _kill_one(self, kind: str) -> tuple[str, int]:
        """Whom, and how many lines were said before."""
        if kind == "worker":
            name = self._draw.choice(WORKERS)
            return name, self._deployment.kill(name)
        said = len(self._deployment.output.lines)
        os.kill(self._draw.choice(_gateways(self._deployment)), signal.SIGKILL)
        return self._deployment.output.wait_for(r"(gateway\S*) was killed by SIGKILL", said)[1], said


@contextlib.contextmanager
def killing(deployment: Deployment, plan: Plan) -> Iterator[Killer]:
    """Kill while the context lasts."""
    killer = Killer(deployment, plan)
    try:
        yield killer
    finally:
        killer.stop()


@contextlib.contextmanager
def watched(deployment: Deployment) -> Iterator[None]:
    """Show where everything stands, in the clients and in the deployment, whenever that has been silent for long."""
    stop = threading.Event()

    def watch() -> None:
        said = -1
        while not stop.wait(SILENCE_S):
            if said == len(deployment.output.lines):
                faulthandler.dump_traceback(sys.stderr)
                print(deployment.output.text, file=sys.stderr)
            said = len(deployment.output.lines)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _gateways(deployment: Deployment) -> list[int]:
    return [pid for pid in deployment.pids if processes.module_of(pid) == "twinfer.gateway"]
