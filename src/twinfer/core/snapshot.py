"""The cluster as a router sees it: one value, taken at one moment."""

from collections.abc import Mapping

import msgspec

from twinfer.core.answers import UNKNOWN_LENGTHS, AnswerLengths
from twinfer.core.capabilities import Fingerprint, WorkerIdentity
from twinfer.core.cost import NO_WORK, Backlog, LinkCost, StepCost
from twinfer.core.ids import ModelId, WorkerId
from twinfer.core.load import LoadReport
from twinfer.core.service import Tier


class WorkerState(msgspec.Struct, frozen=True):
    """A live worker: who it is, what it last reported, and what this gateway has sent it since.

    Args:
        in_flight: requests of this gateway that the worker has not finished.
        in_flight_tokens: their prompt positions.
        answering: those of them that it generates, or will.
        unreported: prompts that it was sent, or will be, which its report does not count yet.
        ahead: all prompts that it still has to compute, these among them, as far as can be told now.
        ahead_before: those of them that come before a new one, by its rank; empty: all of them, for each.
        cost: of its steps, as far as that is known now.
        prefill_share: share of its time that prompts took lately.
        links: cost of transfers to it, by where they come from, as far as that is known now.
    """

    identity: WorkerIdentity
    load: LoadReport
    in_flight: int = 0
    in_flight_tokens: int = 0
    answering: int = 0
    unreported: Backlog = NO_WORK
    ahead: Backlog = NO_WORK
    ahead_before: tuple[Backlog, ...] = ()
    cost: StepCost | None = None
    prefill_share: float = 0.0
    links: Mapping[WorkerId, LinkCost] = {}

    def ahead_of(self, tier: Tier) -> Backlog:
        """Prompts that are to be computed there before a new one of this tier."""
        return self.ahead_before[tier.rank] if self.ahead_before else self.ahead


class ClusterSnapshot(msgspec.Struct, frozen=True):
    """All live workers, in the order of the configuration.

    Args:
        mismatched: pairs (source, sink) of them that cannot pass KV, as was found out.
        parted: pairs that did not hear each other a short while ago.
        answers: how long answers were lately.
    """

    workers: tuple[WorkerState, ...]
    mismatched: frozenset[tuple[WorkerId, WorkerId]] = frozenset()
    parted: frozenset[tuple[WorkerId, WorkerId]] = frozenset()
    answers: AnswerLengths = UNKNOWN_LENGTHS

    def serving(self, model: ModelId) -> tuple[WorkerState, ...]:
        """Those that serve a model."""
        return tuple(state for state in self.workers if state.identity.capabilities.model == model)

    def sharing(self, fingerprint: Fingerprint) -> "ClusterSnapshot":
        """The same without workers whose KV means something else, as with other weights."""
        kept = tuple(state for state in self.workers if state.identity.capabilities.fingerprint == fingerprint)
        return msgspec.structs.replace(self, workers=kept)
