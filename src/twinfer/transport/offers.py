"""Which blocks may be read under which handoff, at the source."""

import threading
from collections.abc import Iterable, Sequence, Set

from twinfer.core.ids import HandoffId


class OfferBook:
    """Open offers of one pool; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: dict[HandoffId, set[int]] = {}

    def offer(self, handoff: HandoffId, blocks: Iterable[int]) -> None:
        """Add blocks to the handoff's."""
        with self._lock:
            self._blocks.setdefault(handoff, set()).update(blocks)

    def release(self, handoff: HandoffId) -> None:
        """Forget the handoff."""
        with self._lock:
            self._blocks.pop(handoff, None)

    def is_open(self, handoff: HandoffId) -> bool:
        """Whether anything is offered under this handoff."""
        with self._lock:
            return handoff in self._blocks

    def refusal(self, handoff: HandoffId, blocks: Sequence[int]) -> str | None:
        """Why these blocks may not be read under this handoff; ``None`` when they may."""
        with self._lock:
            offered: Set[int] = self._blocks.get(handoff, frozenset())
            missing = next((block for block in blocks if block not in offered), None)
        if missing is None:
            return None
        return f"block {missing} is not offered under this handoff" if offered else "nothing is offered under it"
