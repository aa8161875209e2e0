"""How many requests of a simulation are late for certain, so that one that is lost already need not go on."""

from twinfer.simulator.recorder import Journey, Recorder
from twinfer.simulator.summary import Slo

EVERY = 50
"""Requests between two looks: what is open is many."""


class Misses:
    """Of one simulation.

    Args:
        goals: what is good enough.
        at_most: requests that may miss them.
    """

    def __init__(self, goals: Slo, at_most: float) -> None:
        self._goals = goals
        self._at_most = at_most
        self._missed = self._seen = 0
        self._open: list[Journey] = []

    def too_many(self, recorder: Recorder, now: float) -> bool:
        """Whether more are late than may be, whatever happens now; asked often, it looks once in a while."""
        if len(recorder.journeys) < self._seen + EVERY:
            return False
        self._open += recorder.journeys[self._seen :]
        self._seen = len(recorder.journeys)
        still = []
        for journey in self._open:
            if self._is_late(journey, now):
                self._missed += 1
            elif not journey.outcome:
                still.append(journey)
        self._open = still
        return self._missed > self._at_most

    def _is_late(self, journey: Journey, now: float) -> bool:
        if journey.outcome:
            return not self._goals.holds(journey)
        first, goals = now if journey.first_token is None else journey.first_token, self._goals
        if goals.ttft_s is not None and first - journey.arrived > goals.ttft_s:
            return True
        return goals.tpot_s is not None and now - first > goals.tpot_s * (journey.output_tokens - 1)
