"""Who owns each KV block.

Every block is in exactly one state (rule R2 of the handoff protocol):

    free ──allocate──> live ──release, hashed──> cached ──evicted──> free
                        │ └───release, no hash──────────────────────> free
                        └──quarantine──> quarantined ──cleanse──────> free

A live block counts its holders; prefix hits share it. A cached block has no holder, is findable by its hash, and is
the least recently used first to go when free ones run out. A promise is a claim on free and cached blocks, not a
block: it bounds what others may allocate until it is bound or dropped.

Where a host tier is below the pool, the coldest cached blocks are copied to it before they go: a block is borrowed for
its copy, and spare when it is given back: still cached, and evicted before all that are not. Whoever wants it meanwhile
shares it, and lets go of it as of any other.

A pin keeps a block's content, whether somebody holds the block or not: until its time is over, the block is evicted
only after all cached ones without a pin. An owner has a bounded number of pins. They are no claim: a request that needs
the room gets it.

A block's generation changes when its last holder lets go of it, so that whoever read it meanwhile can be told.

Invariant: free + cached + live + quarantined = total, and promised <= free + cached.
"""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from twinfer.core.block_events import BlockEvents
from twinfer.core.block_hash import BlockHash
from twinfer.core.load import BlockCounts
from twinfer.kv.block_log import BlockLog

KEPT_CHANGES = 2
"""Changes of the prefix cache that are remembered, for each block of the pool."""


class _Pin(NamedTuple):
    owner: str
    until: float


class Borrowed(NamedTuple):
    """A block that is held for its copy."""

    block: int
    block_hash: BlockHash
    owner: str


class Match(NamedTuple):
    """A run of resident blocks.

    Attributes:
        num: its length.
        cached, spare, pinned: so many of them nobody holds; ``spare`` ones are copied elsewhere.
    """

    num: int = 0
    cached: int = 0
    spare: int = 0
    pinned: int = 0

    @property
    def idle(self) -> int:
        """So many of them nobody holds: whoever takes the run takes them from what is available."""
        return self.cached + self.spare + self.pinned


NO_MATCH = Match()


class BlockPool:
    """Accounts for ``num_blocks`` blocks; knows nothing of their bytes.

    Args:
        max_pinned: blocks that one owner may pin.
    """

    def __init__(self, num_blocks: int, max_pinned: int = 0) -> None:
        self.num_blocks = num_blocks
        self.max_pinned = max_pinned
        self._free: deque[int] = deque(range(num_blocks))
        self._cached: OrderedDict[int, BlockHash] = OrderedDict()
        self._spare: OrderedDict[int, BlockHash] = OrderedDict()
        """Cached, and copied elsewhere; all of them colder than those that are not."""
        self._kept: OrderedDict[int, BlockHash] = OrderedDict()
        """Cached, and pinned."""
        self._pins: dict[int, _Pin] = {}
        self._num_pinned: Counter[str] = Counter()
        self._holders: dict[int, int] = {}
        self._quarantined: set[int] = set()
        self._hash_of: dict[int, BlockHash] = {}
        self._owner_of: dict[int, str] = {}
        self._by_hash: dict[BlockHash, int] = {}
        self._promised = 0
        self._generations = [0] * num_blocks
        self.log = BlockLog(KEPT_CHANGES * num_blocks)
        self.next_unpin = math.inf
        """No pin ends before."""

    @property
    def num_available(self) -> int:
        """Blocks that may be allocated or promised now."""
        return len(self._free) + self._num_cached - self._promised

    @property
    def num_live(self) -> int:
        """Blocks that have holders."""
        return len(self._holders)

    def counts(self) -> BlockCounts:
        """How many blocks are in each state."""
        return BlockCounts(
            total=self.num_blocks,
            free=len(self._free),
            cached=self._num_cached,
            live=len(self._holders),
            quarantined=len(self._quarantined),
            promised=self._promised,
            pinned=len(self._pins),
        )

    def allocate(self, num_blocks: int) -> list[int] | None:
        """Take blocks that nobody holds, evicting cached ones as needed; all of them or ``None``."""
        return self._take(num_blocks) if num_blocks <= self.num_available else None

    def promise(self, num_blocks: int) -> bool:
        """Set capacity aside without choosing blocks; false when there is not enough."""
        if num_blocks > self.num_available:
            return False
        self._promised += num_blocks
        return True

    def bind(self, num_blocks: int) -> list[int]:
        """Turn a promise of exactly this size into blocks; cannot fail."""
        self.unpromise(num_blocks)
        return self._take(num_blocks)

    def unpromise(self, num_blocks: int) -> None:
        """Drop a promise."""
        if num_blocks > self._promised:
            raise ValueError(f"{num_blocks} blocks to unpromise, only {self._promised} are promised")
        self._promised -= num_blocks

    def match(self, hashes: Sequence[BlockHash], max_blocks: int) -> list[int]:
        """Hold the longest run of resident blocks with these hashes, from the first; at most ``max_blocks``.

        A cached block that a promise needs is not taken, so holding a prefix never breaks a promise.
        """
        held = [self._by_hash[block_hash] for block_hash in hashes[: self.look(hashes, max_blocks).num]]
        for block in held:
            if block not in self._holders:
                self._wake(block)
            self._holders[block] = self._holders.get(block, 0) + 1
        return held

    def look(self, hashes: Sequence[BlockHash], max_blocks: int) -> Match:
        """What :meth:`match` would hold; all stays as it is."""
        available, held = self.num_available, 0
        idle = [0, 0, 0]
        for block_hash in hashes[:max_blocks]:
            block = self._by_hash.get(block_hash)
            if block is None:
                break
            if block in self._holders:
                held += 1
            elif sum(idle) < available:
                idle[self._where(block)] += 1
            else:
                break
        return Match(held + sum(idle), *idle)

    def num_holders(self, block: int) -> int:
        """How many hold a block."""
        return self._holders.get(block, 0)

    def events(self, since: int) -> BlockEvents:
        """Which blocks became findable, and which no longer are, from a change's number on."""
        return self.log.since(since)

    def is_resident(self, block_hash: BlockHash) -> bool:
        """Whether a block of this hash is here."""
        return block_hash in self._by_hash

    def count_match(self, hashes: Sequence[BlockHash]) -> int:
        """Length of the run that :meth:`match` would look at, without holding anything."""
        for count, block_hash in enumerate(hashes):
            if block_hash not in self._by_hash:
                return count
        return len(hashes)

    def publish(self, block: int, block_hash: BlockHash, owner: str = "") -> None:
        """Make a live block of this owner's findable; the first block of a hash stays the one that is found."""
        if block not in self._holders:
            raise ValueError(f"block {block} is not live")
        if block_hash not in self._by_hash:
            self._forget(block)
            self._by_hash[block_hash] = block
            self._hash_of[block] = block_hash
            self._owner_of[block] = owner
            self.log.stored(block_hash)

    def release(self, blocks: Iterable[int]) -> None:
        """Give up one hold on each block. Later blocks of a sequence go first, so that prefixes live longest."""
        for block in reversed(list(blocks)):
            if not self._drop_holder(block):
                continue
            block_hash = self._hash_of.get(block)
            if block_hash is None:
                self._free.append(block)
            else:
                self._idle(block)[block] = block_hash

    def pin(self, hashes: Sequence[BlockHash], owner: str, until: float) -> int:
        """Pin the run of resident blocks with these hashes, from the first, as far as the owner's bound goes.

        A pin that ends later stays as it is. Returns the length of the run.
        """
        for count, block_hash in enumerate(hashes):
            block = self._by_hash.get(block_hash)
            if block is None or (block not in self._pins and self._num_pinned[owner] >= self.max_pinned):
                return count
            known = self._pins.get(block)
            if known is None:
                self._num_pinned[owner] += 1
                if block not in self._holders:
                    self._wake(block)
                    self._kept[block] = hashes[count]
            if known is None or known.until < until:
                self._pins[block] = _Pin(owner, until)
                self.next_unpin = min(self.next_unpin, until)
        return len(hashes)

    def unpin(self, now: float) -> None:
        """End the pins whose time is over: their blocks are the latest of the cached ones."""
        for block in [block for block, pin in self._pins.items() if pin.until <= now]:
            self._drop_pin(block)
            if block in self._kept:
                self._cached[block] = self._kept.pop(block)
        self.next_unpin = min((pin.until for pin in self._pins.values()), default=math.inf)

    def num_uncopied(self, spare: int, taken: Match = NO_MATCH) -> int:
        """Blocks that may be borrowed now, so that as many as ``spare`` can go without being lost.

        Args:
            taken: blocks that are as good as held.
        """
        missing = spare - len(self._free) - len(self._spare) + taken.spare
        return max(0, min(missing, len(self._cached) - taken.cached, self.num_available - taken.idle))

    def borrow(self, num_blocks: int) -> list[Borrowed]:
        """Hold the coldest cached blocks that are not spare, no more than :meth:`num_uncopied`, for their copies."""
        borrowed: list[Borrowed] = []
        for _ in range(num_blocks):
            block, block_hash = self._cached.popitem(last=False)
            self._holders[block] = 1
            borrowed.append(Borrowed(block, block_hash, self._owner_of[block]))
        return borrowed

    def give_back(self, borrowed: Iterable[Borrowed]) -> None:
        """They were copied, or will not be: those that nobody else holds are spare now."""
        for block, block_hash, _ in borrowed:
            if self._drop_holder(block):
                (self._kept if block in self._pins else self._spare)[block] = block_hash

    def generations(self, blocks: Iterable[int]) -> tuple[int, ...]:
        """How often each block was let go."""
        return tuple(self._generations[block] for block in blocks)

    def quarantine(self, blocks: Iterable[int]) -> None:
        """Give up blocks into which bytes may still land; nobody can take them until they are cleansed."""
        for block in blocks:
            if not self._drop_holder(block):
                raise ValueError(f"block {block} is shared and cannot be quarantined")
            self._forget(block)
            self._quarantined.add(block)

    def cleanse(self, blocks: Iterable[int]) -> None:
        """Free quarantined blocks: nothing can land in them any more."""
        for block in blocks:
            self._quarantined.remove(block)
            self._free.append(block)

    @property
    def _num_cached(self) -> int:
        return len(self._cached) + len(self._spare) + len(self._kept)

    def _take(self, num_blocks: int) -> list[int]:
        taken: list[int] = []
        for _ in range(num_blocks):
            if self._free:
                block = self._free.popleft()
            else:
                block, _hash = (self._spare or self._cached or self._kept).popitem(last=False)
                self._forget(block)
            self._holders[block] = 1
            taken.append(block)
        return taken

    def _drop_holder(self, block: int) -> bool:
        """Whether that was the last holder."""
        left = self._holders[block] - 1
        if left:
            self._holders[block] = left
        else:
            del self._holders[block]
            self._generations[block] += 1
        return not left

    def _idle(self, block: int) -> OrderedDict[int, BlockHash]:
        """Where a block with this content is while nobody holds it."""
        return self._kept if block in self._pins else self._cached

    def _wake(self, block: int) -> None:
        """It is not idle any more."""
        del (self._cached, self._spare, self._kept)[self._where(block)][block]

    def _where(self, block: int) -> int:
        """Which of the cached, the spare and the kept ones an idle block is among."""
        return 0 if block in self._cached else 1 if block in self._spare else 2

    def _drop_pin(self, block: int) -> None:
        pin = self._pins.pop(block, None)
        if pin is not None:
            self._num_pinned[pin.owner] -= 1

    def _forget(self, block: int) -> None:
        self._drop_pin(block)
        block_hash = self._hash_of.pop(block, None)
        if block_hash is not None:
            del self._owner_of[block]
            del self._by_hash[block_hash]
            self.log.gone(block_hash)
