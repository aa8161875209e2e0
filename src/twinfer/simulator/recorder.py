"""What is written down while time passes."""

from dataclasses import dataclass, field

from twinfer.core.capabilities import Role
from twinfer.core.ids import WorkerId
from twinfer.simulator.distribution import Gaps
from twinfer.simulator.strip import Strip


@dataclass(slots=True)
class Journey:
    """One request, from its client's side; times in seconds since the trace began.

    Attributes:
        outcome: ``ok``, or why it ended otherwise, in one word.
        cached_tokens: of the prompt, not computed for it.
        recoveries: plans made because a worker failed.
    """

    number: int
    arrived: float
    prompt_tokens: int
    output_tokens: int
    first_token: float | None = None
    last_token: float | None = None
    num_tokens: int = 0
    disaggregated: bool = False
    cached_tokens: int = 0
    recoveries: int = 0
    outcome: str = ""

    @property
    def ttft_s(self) -> float | None:
        """Arrival to first token."""
        return None if self.first_token is None else self.first_token - self.arrived

    @property
    def tpot_s(self) -> float | None:
        """Time per token after the first; ``None`` where there is none."""
        if self.first_token is None or self.last_token is None or self.num_tokens < 2:
            return None
        return (self.last_token - self.first_token) / (self.num_tokens - 1)


@dataclass(slots=True)
class WorkerRecord:
    """One worker over all its incarnations.

    Attributes:
        busy: time in steps.
        held: blocks that a request or a handoff holds, times seconds.
    """

    name: str
    busy: Strip
    held: Strip
    num_blocks: int
    steps: int = 0
    held_since: float = 0.0
    num_held: int = 0
    peak_held: int = 0
    prefill_tokens: int = 0
    cached_tokens: int = 0
    decode_tokens: int = 0
    preemptions: int = 0
    bytes_in: float = 0.0
    bytes_out: float = 0.0

    def holds(self, now: float, num_blocks: int) -> None:
        """From now on that many blocks are held."""
        if num_blocks != self.num_held:
            self.held.add(self.held_since, now, self.num_held)
            self.held_since, self.num_held = now, num_blocks
            self.peak_held = max(self.peak_held, num_blocks)


@dataclass(slots=True)
class Move:
    """A change of role, from when it was wished; in seconds since the trace began.

    Attributes:
        took_s: until the gateway had heard that it was done; ``None`` before.
    """

    at_s: float
    worker: WorkerId
    role: Role
    reason: str
    took_s: float | None = None


@dataclass(slots=True)
class Recorder:
    """Everything of one simulation."""

    bin_s: float
    gaps: Gaps = field(default_factory=Gaps)
    journeys: list[Journey] = field(default_factory=list)
    workers: dict[str, WorkerRecord] = field(default_factory=dict)
    handoffs: list[tuple[float, float]] = field(default_factory=list)
    """Of each committed one: seconds from seal to commit, and bytes."""
    replans: dict[str, int] = field(default_factory=dict)
    fetches: dict[str, int] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)

    def turned(self, worker: WorkerId, role: Role, now: float) -> None:
        """A worker says what its role is."""
        for move in self.moves:
            if (move.worker, move.role, move.took_s) == (worker, role, None):
                move.took_s = now - move.at_s

    def worker(self, name: str, num_blocks: int) -> WorkerRecord:
        """A new worker's record."""
        self.workers[name] = WorkerRecord(name, Strip(self.bin_s), Strip(self.bin_s), num_blocks)
        return self.workers[name]
