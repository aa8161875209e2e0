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
    """What is to happen; of kills at most so many, since they end with the questions."""

    requests: int
    worker_kills: int
    gateway_kills: int
    clients: int = 12
    seed: int = 0


@contextlib.contextmanager
def killing(deployment: Deployment, plan: Plan) -> Iterator[list[str]]:
    """Kill while the context lasts, each time as soon as the last victim is there again; tells whom."""
    draw, killed = random.Random(plan.seed), list[str]()
    kinds = ["worker"] * plan.worker_kills + ["gateway"] * plan.gateway_kills
    draw.shuffle(kinds)
    stop = threading.Event()

    def kill() -> None:
        for kind in kinds:
            if stop.wait(draw.uniform(0.1, 0.8)):
                return
            killed.append(kind)
            if kind == "worker":
                name = draw.choice(WORKERS)
                said = deployment.kill(name)
            else:
                said = len(deployment.output.lines)
                os.kill(draw.choice(_gateways(deployment)), signal.SIGKILL)
                name = deployment.output.wait_for(r"(gateway\S*) was killed by SIGKILL", said)[1]
            deployment.output.wait_for(rf"{name}: ready", said)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


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
