"""Which workers a latency mode may use: those of pools for low latency, or those of the others."""

from collections.abc import Iterable

import msgspec

from twinfer.core.config import PoolConfig
from twinfer.core.ids import ModelId
from twinfer.core.service import Latency
from twinfer.core.snapshot import ClusterSnapshot, WorkerState


class Lanes:
    """The pools for low latency among those of a configuration."""

    def __init__(self, pools: Iterable[PoolConfig]) -> None:
        self._fast = frozenset(pool.name for pool in pools if pool.latency == "optimized")

    def is_open(self, snapshot: ClusterSnapshot, model: ModelId) -> bool:
        """Whether a worker for low latency can decode now."""
        return any(self._is_fast(state) and state.identity.role.decodes for state in snapshot.serving(model))

    def narrow(self, snapshot: ClusterSnapshot, model: ModelId, latency: Latency) -> ClusterSnapshot:
        """The cluster as a request of this mode may use it.

        For low latency, prompts may be computed by workers that do nothing else. Where nobody is left to decode, all of
        the cluster is better than no answer.
        """
        if not self._fast:
            return snapshot
        wanted = latency is Latency.OPTIMIZED
        kept = tuple(
            state
            for state in snapshot.workers
            if self._is_fast(state) == wanted or (wanted and not state.identity.role.decodes)
        )
        narrowed = msgspec.structs.replace(snapshot, workers=kept)
        decodes = any(state.identity.role.decodes for state in narrowed.serving(model))
        return narrowed if decodes else snapshot

    def _is_fast(self, state: WorkerState) -> bool:
        return state.identity.worker.rpartition("-")[0] in self._fast
