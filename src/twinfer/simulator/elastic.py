"""Shows a simulated fleet to the policy that moves roles, as the first gateway does, and passes its wishes on."""

from collections.abc import Callable

from twinfer.core.ids import ModelId, RequestId, WorkerId
from twinfer.core.messages import Become, ToWorker
from twinfer.router.elastic import ElasticPolicy
from twinfer.simulator.fleet import Fleet
from twinfer.simulator.recorder import Move, Recorder
from twinfer.simulator.scenario import Scenario
from twinfer.simulator.schedule import Schedule

LOOK_S = 0.1


class Shaper:
    """Looks for as long as requests come or are under way."""

    def __init__(
        self,
        scenario: Scenario,
        fleet: Fleet,
        schedule: Schedule,
        send: Callable[[WorkerId, ToWorker], None],
        recorder: Recorder,
    ) -> None:
        self._model = ModelId(scenario.config.model[0].id)
        self._policy = ElasticPolicy(scenario.config.elastic, scenario.config.routing)
        self._fleet = fleet
        self._schedule = schedule
        self._send = send
        self._recorder = recorder

    def look(self, is_over: Callable[[], bool]) -> None:
        """Now, and then again and again."""
        if is_over():
            return
        now, moves = self._schedule.now(), self._recorder.moves
        for wish in self._policy.see(self._fleet.snapshot(now).serving(self._model), now):
            moves.append(Move(now, wish.worker, wish.role, wish.reason))
            self._send(wish.worker, Become(RequestId(f"turn-{len(moves)}"), wish.role))
        self._schedule.after(LOOK_S, self.look, is_over)
