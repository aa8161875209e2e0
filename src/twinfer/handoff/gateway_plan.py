"""What an attempt at a request is made of, once the router has chosen its workers."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from twinfer.core.capabilities import WorkerIdentity
from twinfer.core.ids import Epoch, HandoffId, WorkerId
from twinfer.core.route import Route
from twinfer.core.snapshot import ClusterSnapshot
from twinfer.handoff.gateway_actions import Fetching, Passing, Plan


@dataclass(frozen=True, slots=True)
class Chosen:
    """The router's choice, and what it looked at.

    Attributes:
        hits: prompt tokens whose KV a worker is known to have.
        min_fetch_tokens: from how many on a fetch of a prefix pays on this route; 0 when it never does.
    """

    route: Route
    snapshot: ClusterSnapshot
    hits: Mapping[WorkerId, int]
    min_fetch_tokens: int

    def plan(
        self, kept: Passing | None, ended: Collection[Epoch], has_decoded: bool, new_id: Callable[[], HandoffId]
    ) -> Plan:
        """The first attempt, or one after others.

        Args:
            kept: KV that its source still holds for it.
            ended: starts of workers on which an attempt ended.
            has_decoded: there is output that a handoff does not pass.
            new_id: names handoffs; none twice.
        """
        decode = self.route.decode
        weights = self._identity(decode).capabilities.fingerprint
        if kept is not None and self._can_take(decode, kept, ended):
            route = Route(decode, kept.source, "the same KV for another decode worker")
            return Plan(route, kept, weights=weights)
        if has_decoded:
            reason = "prompt and output so far are computed where the answer goes on"
            return Plan(Route(decode, None, reason), weights=weights)
        return replace(self._anew(new_id), weights=weights)

    def _anew(self, new_id: Callable[[], HandoffId]) -> Plan:
        route = self.route
        if route.prefill is None:
            return Plan(route)
        passing = _passing(self._identity(route.prefill), new_id)
        if not self.min_fetch_tokens:
            return Plan(route, passing)
        lent = _passing(self._identity(route.decode), new_id)
        return Plan(route, passing, Fetching(lent, self.min_fetch_tokens, self.hits.get(route.prefill, 0)))

    def _can_take(self, decode: WorkerId, kept: Passing, ended: Collection[Epoch]) -> bool:
        """Whether kept KV can go there: to a start of a worker with its weights that never ended the same handoff."""
        identity = self._identity(decode)
        if (kept.source, decode) in self.snapshot.mismatched or identity.epoch in ended:
            return False
        if identity.capabilities.fingerprint != kept.capabilities.fingerprint:
            return False
        return any(state.identity.epoch == kept.source_epoch for state in self.snapshot.workers)

    def _identity(self, worker: WorkerId) -> WorkerIdentity:
        return next(state.identity for state in self.snapshot.workers if state.identity.worker == worker)


def _passing(source: WorkerIdentity, new_id: Callable[[], HandoffId]) -> Passing:
    return Passing(new_id(), source.worker, source.epoch, source.capabilities)
