"""A simulated deployment: all workers of a configuration, one gateway, and the network between them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from twinfer.core.capabilities import WorkerIdentity
from twinfer.core.errors import ConfigError
from twinfer.core.grant import GrantTerms
from twinfer.core.ids import Epoch, WorkerId
from twinfer.core.messages import Blocks, Frame, Granted, Hello, Load, ToGateway, ToSink, ToSource, ToWorker
from twinfer.engine.assemble import limits
from twinfer.engine.loop import EngineLoop
from twinfer.kv.block_pool import BlockPool
from twinfer.simulator.context import Life, Spoken
from twinfer.simulator.elastic import Shaper
from twinfer.simulator.engine import Pace, VirtualEngine
from twinfer.simulator.failures import Failure
from twinfer.simulator.fleet import Fleet
from twinfer.simulator.gateway import Gateway
from twinfer.simulator.hardware import Hardware
from twinfer.simulator.links import arrival
from twinfer.simulator.prompt import SpanHasher
from twinfer.simulator.recorder import Recorder, WorkerRecord
from twinfer.simulator.scenario import Scenario
from twinfer.simulator.schedule import Schedule
from twinfer.simulator.worker import Incarnation

KEY = b"a key for grants within one simulation"
TURN_BITS = 32
"""Of an epoch: changes of role are counted there, so that no two incarnations ever have the same one."""


@dataclass(slots=True, eq=False)
class _Worker:
    name: WorkerId
    hardware: Hardware
    record: WorkerRecord
    now: Incarnation
    down: int = 0
    """Failures of it that are under way."""
    apart: int = 0
    """Failures of its link that are."""
    slower: float = 1.0
    link_slower: float = 1.0

    def set_pace(self) -> None:
        """Steps and transfers take as many times as long as is asked for now."""
        self.now.life.engine.slow_down(self.slower)
        self.now.life.way_in.slower = self.now.life.way_out.slower = self.link_slower


class Cluster:
    """Everything that happens in one simulation.

    Raises:
        ConfigError: a failure names a worker that is not there.
    """

    def __init__(self, scenario: Scenario, schedule: Schedule, recorder: Recorder) -> None:
        self.schedule = schedule
        self._scenario = scenario
        self._recorder = recorder
        self._message_s = scenario.overheads.message_s
        self._workers: dict[WorkerId, _Worker] = {}
        self._num_epochs = 0
        for pool in scenario.config.pool:
            for index in range(pool.workers):
                name, hardware = WorkerId(f"{pool.name}-{index}"), scenario.hardware[pool.name]
                record = recorder.worker(name, hardware.capabilities.num_blocks)
                incarnation = self._incarnation(name, hardware, record)
                self._workers[name] = _Worker(name, hardware, record, incarnation)
        self.fleet = Fleet((worker.now.life.identity for worker in self._workers.values()), KEY)
        self.gateway = Gateway(scenario, self.fleet, schedule, self._to_worker, recorder)
        self.shaper = Shaper(scenario, self.fleet, schedule, self._to_worker, recorder)
        for failure in scenario.failures:
            self._expect(failure)

    @property
    def incarnations(self) -> list[Incarnation]:
        """Of all workers, the last of each."""
        return [worker.now for worker in self._workers.values()]

    def to_gateway(self, life: Life, message: ToGateway) -> None:
        """A worker speaks of a request, or of itself."""
        if life.alive:
            self.schedule.after(self._message_s, self._heard, life, message)

    def tokens(self, life: Life, spoken: Spoken, *, done: bool) -> None:
        """A worker drew tokens. They get to the gateway in order, so their way is added to their times alone."""
        link = self.fleet.links[life.identity.worker]
        request_id = spoken.tokens[0].request_id
        entry = link.listeners.get(request_id)
        if entry is None or link.identity.epoch != life.identity.epoch:
            return
        if done:
            link.forget(request_id)
        heard = Spoken(spoken.tokens, spoken.first_s + self._message_s, spoken.last_s + self._message_s)
        entry[0].hear_tokens(life.identity.worker, heard, done=done)

    def to_sink(self, source: Life, terms: GrantTerms, message: ToSink) -> None:
        """A source speaks to whatever incarnation of the sink is there."""
        if self.hears(source, terms.sink, terms.sink_epoch):
            self.schedule.after(self._message_s, self._workers[terms.sink].now.hear_source, message)

    def to_source(self, sink: Life, terms: GrantTerms, message: ToSource) -> None:
        """A sink speaks to the source's incarnation."""
        if self.hears(sink, terms.source, terms.source_epoch):
            self.schedule.after(self._message_s, self._workers[terms.source].now.hear_sink, message)

    def hears(self, life: Life, peer: WorkerId, epoch: str) -> bool:
        """Whether a peer's incarnation lives and can be reached."""
        other, me = self._workers[peer], self._workers[life.identity.worker]
        there = other.now.life.alive and other.now.life.identity.epoch == epoch
        return there and not (other.apart or me.apart) and life.alive

    def pull(self, sink: Life, terms: GrantTerms, num_bytes: float) -> float | None:
        """Begin to move bytes to a sink."""
        if not self.hears(sink, terms.source, terms.source_epoch):
            return None
        way_out = self._workers[terms.source].now.life.way_out
        return arrival(way_out, sink.way_in, self.schedule.now(), num_bytes)

    def _incarnation(self, name: WorkerId, hardware: Hardware, record: WorkerRecord) -> Incarnation:
        config, pool, capabilities = self._scenario.config, hardware.pool, hardware.capabilities
        self._num_epochs += 1
        identity = WorkerIdentity(name, Epoch(f"{self._num_epochs << TURN_BITS:016x}"), pool.role, capabilities, name)
        layout = capabilities.layout
        loop = EngineLoop(
            BlockPool(capabilities.num_blocks),
            SpanHasher(KEY, capabilities.fingerprint, capabilities.provenance, layout.block_tokens),
            replace(limits(pool, capabilities), guess_rows=0, max_run=self._scenario.max_run, run_within_blocks=True),
            vocab_size=None,
        )
        pace = Pace(hardware.times, self._scenario.overheads.step_s)
        max_parked = int(capabilities.num_blocks * config.handoff.max_parked_fraction)
        engine = VirtualEngine(loop, pace, self.schedule, max_parked, hardware.fit())
        life = Life(
            identity, engine, hardware, self.schedule, self, config.handoff, KEY, hardware.port(), hardware.port()
        )
        return Incarnation(life, self._recorder, record, config.link.max_in_flight_mib * 2**20)

    def _to_worker(self, name: WorkerId, message: ToWorker) -> None:
        if self.fleet.links[name].alive:
            self.schedule.after(self._message_s, self._workers[name].now.take, message)

    def _heard(self, life: Life, message: ToGateway) -> None:
        link, worker = self.fleet.links[life.identity.worker], life.identity.worker
        if not link.alive or self._workers[worker].now.life is not life:
            return
        if isinstance(message, Hello):
            self.fleet.turned(message.identity)
            self._recorder.turned(worker, message.identity.role, self.schedule.now())
        elif isinstance(message, Load):
            self.fleet.reported(worker, message.report, self.schedule.now())
        elif isinstance(message, Blocks):
            self.fleet.blocks(worker, message.events)
        elif isinstance(message, Frame):
            for done in message.done:
                if (listener := link.forget(done.request_id)) is not None:
                    listener.hear(worker, message)
        elif isinstance(message, Granted):
            if (entry := link.listeners.get(message.request_id)) is not None:
                entry[0].hear(worker, message)
        elif (listener := link.forget(message.request_id)) is not None:
            listener.hear(worker, message)

    def _expect(self, failure: Failure) -> None:
        worker = self._workers.get(WorkerId(failure.worker))
        if worker is None:
            known = ", ".join(list(self._workers)[:8])
            raise ConfigError(f"--fail names the worker {failure.worker!r}, which is not there; workers are {known}")
        begin, end = (self._part, self._rejoin) if failure.link_only else (self._die, self._restart)
        if (times := failure.slower) is not None:
            change = self._slow_link if failure.link_only else self._slow
            begin, end = partial(change, times=times), partial(change, times=1 / times)
        self.schedule.at(failure.at_s, begin, worker)
        if failure.lasts_s is not None:
            self.schedule.at(failure.at_s + failure.lasts_s, end, worker)

    def _slow(self, worker: _Worker, times: float) -> None:
        worker.slower *= times
        worker.set_pace()

    def _slow_link(self, worker: _Worker, times: float) -> None:
        worker.link_slower *= times
        worker.set_pace()

    def _die(self, worker: _Worker) -> None:
        """The process is gone; its peers and the gateway notice as soon as their streams end."""
        worker.down += 1
        if worker.down > 1:
            return
        worker.now.die()
        self.schedule.after(self._message_s, self.fleet.lost, worker.name)
        self._notice(worker, self._others(worker))

    def _restart(self, worker: _Worker) -> None:
        worker.down -= 1
        if worker.down:
            return
        worker.now = self._incarnation(worker.name, worker.hardware, worker.record)
        worker.set_pace()
        self.fleet.met(worker.now.life.identity)

    def _part(self, worker: _Worker) -> None:
        """Both ends of its streams notice at once."""
        worker.apart += 1
        self._notice(worker, self._others(worker))
        for other in self._others(worker):
            worker.now.sink.source_lost(other.now.life.identity.epoch)

    def _rejoin(self, worker: _Worker) -> None:
        worker.apart -= 1
        for one in self._workers.values():
            if one.now.life.alive and not one.apart:
                one.now.source.reconnected()

    def _notice(self, worker: _Worker, others: Sequence[_Worker]) -> None:
        epoch = worker.now.life.identity.epoch
        for other in others:
            if other.now.life.alive:
                other.now.sink.source_lost(epoch)

    def _others(self, worker: _Worker) -> list[_Worker]:
        return [other for other in self._workers.values() if other is not worker]
