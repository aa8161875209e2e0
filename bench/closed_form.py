"""Serving in closed form: what pools can take and how long requests wait, from the time of steps.

Requests are alike. Computing a prompt keeps a replica busy for as long as it lengthens a step; a token takes its share
of a step that all running requests have together. Waiting is that of random arrivals and equal service times, dealt out
evenly: ``busy / (2 * (1 - busy))`` services.
"""

import math
from dataclasses import dataclass

from twinfer.devices.fit import max_sequences
from twinfer.devices.placement import Placement, Work
from twinfer.devices.profile import Device
from twinfer.devices.shape import ModelShape
from twinfer.devices.step_time import interval_seconds, step_seconds


@dataclass(frozen=True, slots=True)
class Load:
    """What each request is like.

    Attributes:
        prompt: its tokens.
        answer: tokens that are drawn.
        cached: of the prompt's tokens, those whose KV is already there.
    """

    prompt: int
    answer: int
    cached: int = 0

    @property
    def context(self) -> int:
        """Positions in the middle of the answer."""
        return self.prompt + self.answer // 2

    @property
    def end(self) -> int:
        """Positions at the end."""
        return self.prompt + self.answer


@dataclass(frozen=True, slots=True)
class Replica:
    """A model on devices."""

    device: Device
    shape: ModelShape
    placement: Placement

    def prompt_seconds(self, load: Load) -> float:
        """Of one prompt alone."""
        return step_seconds(self.device, self.shape, self.placement, [Work(load.prompt - load.cached, load.cached)])

    def chunk_seconds(self, load: Load, chunk: int) -> float:
        """Of a step with the prompt's last so many tokens and one token of another request."""
        plan = [Work(chunk, load.prompt - chunk), Work(1, load.context)]
        return step_seconds(self.device, self.shape, self.placement, plan)

    def prompt_busy_seconds(self, load: Load) -> float:
        """After which the next prompt may follow."""
        return interval_seconds(self.device, self.shape, self.placement, [Work(load.prompt - load.cached, load.cached)])

    def token_seconds(self, load: Load, running: int = 1) -> float:
        """Between tokens of one of so many running requests."""
        return step_seconds(self.device, self.shape, self.placement, [Work(1, load.context)] * running)

    def token_busy_seconds(self, load: Load, running: int) -> float:
        """Of the replica, for one token of one of so many."""
        plan = [Work(1, load.context)] * running
        return interval_seconds(self.device, self.shape, self.placement, plan) / running

    def places(self, load: Load) -> int:
        """Requests whose KV fits at their end."""
        return max_sequences(self.device, self.shape, self.placement, load.end)

    def running(self, load: Load, token_limit_s: float = math.inf) -> int:
        """The most requests that fit and keep the time per token below a limit; 0 where none does."""
        low, high = 0, self.places(load)
        while low < high:
            middle = (low + high + 1) // 2
            if self.token_seconds(load, middle) <= token_limit_s:
                low = middle
            else:
                high = middle - 1
        return low

    def request_busy_seconds(self, load: Load, running: int) -> float:
        """Of a replica that does both, for one request: its prompt and its share of steps."""
        return self.prompt_busy_seconds(load) + load.answer * self.token_busy_seconds(load, running)


def waiting_seconds(busy: float, service_s: float) -> float:
    """Mean wait before one server that is busy for that share of the time; without end from 1 on."""
    return math.inf if busy >= 1.0 else service_s * busy / (2.0 * (1.0 - busy))


def rate_within(limit_s: float, service_s: float) -> float:
    """The highest rate of arrivals at one server whose mean wait and service stay within a limit; 0 where none does."""
    slack = limit_s - service_s
    return max(0.0, 2.0 * slack / (service_s + 2.0 * slack) / service_s) if slack > 0 else 0.0
