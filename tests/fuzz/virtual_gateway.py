"""A gateway in virtual time: drives the product's ``GatewayRequest`` over virtual workers, and checks every answer."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.fakes import MODEL, expected_output
from tests.fuzz.faults import Faults
from tests.fuzz.schedule import Schedule
from tests.fuzz.virtual_worker import HANDOFF, VirtualWorker
from twinfer.core.errors import CapacityError, TwinferError
from twinfer.core.ids import Epoch, HandoffId, ModelId, RequestId, TenantId, WorkerId
from twinfer.core.messages import Busy, Failed, Frame, Granted, Load, Refused, ToGateway, ToWorker
from twinfer.core.request import GenerationRequest, Sampling, Stopping
from twinfer.core.route import Route
from twinfer.handoff.gateway_actions import (
    Emit,
    FetchBegan,
    FetchEnded,
    Fetching,
    GatewayAction,
    Mismatch,
    Passing,
    Plan,
    Replan,
    Send,
)
from twinfer.handoff.gateway_side import GatewayRequest

DEADLINE_S = 20.0
MIN_FETCH_TOKENS = 4
MAX_PROMPT = 150


class Wrong(AssertionError):
    """The world saw what must never happen."""


@dataclass(eq=False)
class Job:
    """One request and what its client saw.

    Attributes:
        expected: the only right answer.
        outcome: the terminal error, ``None`` for a good end; unset while it runs.
    """

    machine: GatewayRequest
    expected: list[int]
    tokens: list[int] = field(default_factory=list)
    outcomes: list[TwinferError | None] = field(default_factory=list)
    left: bool = False

    @property
    def over(self) -> bool:
        """Whether its client has its outcome, or went away."""
        return self.left or bool(self.outcomes)


class VirtualGateway:
    """One gateway incarnation after another.

    Args:
        workers: all of the world's, by name.
        deliver: sends to a worker over the world's network.
    """

    def __init__(
        self,
        workers: dict[WorkerId, VirtualWorker],
        schedule: Schedule,
        faults: Faults,
        deliver: Callable[["VirtualGateway", WorkerId, ToWorker], None],
    ) -> None:
        self._workers = workers
        self._schedule = schedule
        self._faults = faults
        self._deliver = deliver
        self.jobs: list[Job] = []
        self._by_wire_id: dict[RequestId, Job] = {}
        self.alive = True
        self.num_handoffs = 0
        self.num_kept = 0
        self.fetches: Counter[str] = Counter()
        self._mismatched: set[tuple[Epoch, Epoch]] = set()

    def start(self, number: int) -> None:
        """A client asks something."""
        dice = self._schedule.random
        prompt, tenant = self._prompt()
        num_tokens = dice.randint(1, 6) if dice.random() < 0.9 else dice.randint(7, 24)
        hurried = self._schedule.chance("hurry", self._faults.hurry)
        request = GenerationRequest(
            RequestId(f"r{number}"),
            ModelId(MODEL.id),
            tenant,
            prompt,
            Stopping(num_tokens),
            Sampling(temperature=0.0),
            deadline_s=dice.random() * 0.2 if hurried else DEADLINE_S,
        )
        job = Job(GatewayRequest(request, 8, HANDOFF), expected_output(prompt, num_tokens, tenant=request.tenant))
        self.jobs.append(job)
        self._plan(job, frozenset())
        self._schedule.after(request.deadline_s, lambda: self._act(job, job.machine.overdue()))
        if self._schedule.chance("leave", self._faults.leave):
            self._schedule.after(dice.random() * 0.1, lambda: self._leave(job))

    def crash(self) -> None:
        """Die: clients see a broken connection, and nobody is told anything."""
        self.alive = False
        for job in self.jobs:
            job.left = job.left or not job.outcomes

    def hear(self, worker: WorkerId, message: ToGateway) -> None:
        """A worker speaks."""
        if not self.alive or isinstance(message, Load):
            return
        if isinstance(message, Frame):
            self._hear_frame(worker, message)
            return
        assert isinstance(message, Granted | Busy | Refused | Failed)
        job = self._by_wire_id.get(message.request_id)
        if job is not None:
            self.num_handoffs += isinstance(message, Granted) and job.machine.wire_id == message.request_id
            self._act(job, job.machine.hear(worker, message, self._schedule.now()))

    def worker_lost(self, worker: WorkerId) -> None:
        """A worker's stream ended."""
        if self.alive:
            for job in self.jobs:
                self._act(job, job.machine.lost(worker))

    def check(self) -> None:
        """Every client has one outcome, and a good end means the whole right answer."""
        for job in self.jobs:
            if not job.over:
                raise Wrong(f"{job.machine.request.request_id} hangs in state {job.machine.state}")
            if len(job.outcomes) > 1:
                raise Wrong(f"{job.machine.request.request_id} ended twice: {job.outcomes}")
            if job.outcomes == [None] and job.tokens != job.expected:
                raise Wrong(f"{job.machine.request.request_id} ended well with a part of its answer")

    def _hear_frame(self, worker: WorkerId, frame: Frame) -> None:
        for done in frame.done:
            if (job := self._by_wire_id.get(done.request_id)) is not None:
                self._act(job, job.machine.fetch_done(worker, done.request_id))
        for token in frame.tokens:
            job = self._by_wire_id.get(token.request_id)
            if job is not None and job.machine.wire_id == token.request_id:
                self._act(job, job.machine.tokens((token,)))

    def _plan(self, job: Job, excluded: frozenset[WorkerId], keep: Passing | None = None) -> None:
        if not self.alive or job.over:
            return
        dice = self._schedule.random
        up = [worker for worker in self._workers.values() if worker.life.alive]
        decoders = [w for w in up if w.life.identity.role.decodes]
        prefillers = [w for w in up if not w.life.identity.role.decodes]
        if not decoders:
            self._act(job, job.machine.unplannable(CapacityError("no decode worker is up", 0.2), self._schedule.now()))
            return
        decode = dice.choice([w for w in decoders if w.name not in excluded] or decoders)
        prefillers = [w for w in prefillers if (w.epoch, decode.epoch) not in self._mismatched]
        if keep is not None and any(w.epoch == keep.source_epoch for w in prefillers):
            self.num_kept += 1
            self._act(job, job.machine.planned(Plan(Route(decode.name, keep.source, "fuzz"), keep)))
            return
        if not prefillers or dice.random() < 0.05:
            self._act(job, job.machine.planned(Plan(Route(decode.name, None, "fuzz"))))
            return
        source = dice.choice([w for w in prefillers if w.name not in excluded] or prefillers)
        handoff = HandoffId(f"{dice.getrandbits(128):032x}")
        misinformed = self._schedule.chance("misinform", self._faults.misinform)
        described = dice.choice(prefillers) if misinformed else source
        passing = Passing(handoff, source.name, source.epoch, described.life.identity.capabilities)
        plan = Plan(Route(decode.name, source.name, "fuzz"), passing, self._fetching(decode, source))
        self._act(job, job.machine.planned(plan))

    def _prompt(self) -> tuple[tuple[int, ...], TenantId]:
        """Something new, or the next turn of a conversation: an earlier prompt, its answer, and something new."""
        dice = self._schedule.random
        new = tuple(dice.randrange(900) for _ in range(dice.randint(1, 40)))
        answered = [job for job in self.jobs if job.outcomes == [None]]
        if answered and dice.random() < 0.6:
            job = dice.choice(answered)
            prompt = (*job.machine.request.prompt, *job.expected, *new)
            if len(prompt) <= MAX_PROMPT:
                return prompt, job.machine.request.tenant
        return (*([dice.randrange(3)] * dice.choice([0, 8, 12])), *new), TenantId(dice.choice("ab"))

    def _fetching(self, decode: VirtualWorker, prefill: VirtualWorker) -> Fetching | None:
        """Mostly as the router would have it; else the workers must find out for themselves."""
        source, sink = decode.life.identity, prefill.life.identity
        alike = source.capabilities.provenance == sink.capabilities.provenance
        if (source.epoch, sink.epoch) in self._mismatched or not (alike or self._schedule.random.random() < 0.1):
            return None
        handoff = HandoffId(f"{self._schedule.random.getrandbits(128):032x}")
        misinformed = self._schedule.chance("misinform", self._faults.misinform)
        described = self._schedule.random.choice(list(self._workers.values())) if misinformed else decode
        passing = Passing(handoff, source.worker, source.epoch, described.life.identity.capabilities)
        return Fetching(passing, MIN_FETCH_TOKENS)

    def _act(self, job: Job, actions: Sequence[GatewayAction]) -> None:
        self._by_wire_id[job.machine.wire_id] = job
        machine = job.machine
        for action in actions:
            if isinstance(action, Send):
                self._deliver(self, action.worker, action.message)
            elif isinstance(action, Emit):
                self._emit(job, [token.token_id for token in action.tokens])
            elif isinstance(action, Mismatch):
                self._mismatched.add((self._workers[action.source].epoch, self._workers[action.sink].epoch))
            elif isinstance(action, FetchBegan):
                self._by_wire_id[action.fetch] = job
                self._schedule.after(
                    action.within_s, lambda fetch=action.fetch: self._act(job, machine.fetch_overdue(fetch))
                )
            elif isinstance(action, FetchEnded):
                self.fetches[action.outcome] += 1
            elif isinstance(action, Replan):
                self._schedule.after(action.pause_s, lambda again=action: self._plan(job, again.exclude, again.keep))
            else:
                job.outcomes.append(action.error)
                self._act(job, job.machine.client_left())  # what a generation does when it is closed

    def _emit(self, job: Job, token_ids: list[int]) -> None:
        job.tokens += token_ids
        if job.tokens != job.expected[: len(job.tokens)]:
            raise Wrong(f"{job.machine.request.request_id}: {job.tokens} instead of {job.expected}")

    def _leave(self, job: Job) -> None:
        if self.alive and not job.over:
            job.left = True
            self._act(job, job.machine.client_left())
