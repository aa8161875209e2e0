"""Carries out what is to be copied between a pool and the host tier below it; see ``engine.host_exchange``.

Pool and tier lie in one memory, block after block, from which other workers read both. Where the pool itself is on a
device, the memory's first blocks are its staging area, and a block passes through the one of its number.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twinfer.engine.host_exchange import CopyPlan, Filling
from twinfer.transport.digest import digest_views


class Staging(Protocol):
    """Brings blocks between a device and the memory; a runner is one."""

    def to_host(self, blocks: Sequence[int]) -> None:
        """Make final blocks readable in the memory."""
        ...

    def from_host(self, blocks: Sequence[int]) -> None:
        """Take over blocks that arrived in the memory."""
        ...


class HostCopies:
    """Copies blocks within one memory.

    Args:
        memory: all blocks of the pool and then all slots of the tier.
        block_bytes: size of each.
    """

    def __init__(self, memory: memoryview, block_bytes: int, staging: Staging) -> None:
        self._blocks: NDArray[np.uint8] = np.frombuffer(memory, np.uint8).reshape(-1, block_bytes)
        self._staging = staging

    def make(self, plan: CopyPlan) -> tuple[list[list[int]], list[int]]:
        """The digests of the blocks that were filled, up to the first wrong one, and of the slots that were stored."""
        filled = [self._fill(filling) for filling in plan.fillings]
        stored = [(storing.borrowed.block, storing.slot) for storing in plan.storings if storing.slot is not None]
        self._staging.to_host([block for block, _ in stored])
        return filled, [self._copy(block, slot) for block, slot in stored]

    def _fill(self, filling: Filling) -> list[int]:
        digests: list[int] = []
        for slot, block, wanted in zip(filling.slots, filling.blocks, filling.digests, strict=True):
            digests.append(self._copy(slot, block))
            if digests[-1] != wanted:
                break
        self._staging.from_host(filling.blocks[: len(digests)])
        return digests

    def _copy(self, source: int, target: int) -> int:
        """The digest of what lies there afterwards."""
        np.copyto(self._blocks[target], self._blocks[source])  # a slice assignment would keep the GIL
        return digest_views([self._blocks[target].data])
