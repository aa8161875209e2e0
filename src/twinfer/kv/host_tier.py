"""Which KV blocks have a copy in host memory, and whose gives way for another: a second tier under a block pool.

A slot of the tier holds one full block. It is in one state:

    free ──reserve──> filling ──fill──> idle <──hold, release──> held
      ^                                  │                        │
      └───────────────evicted────────────┴──discarded, released───┘

1. Only idle and held slots can be found, so nobody reads what is not whole (rule R1).
2. A hold has a deadline. When that is over it counts as released; a slot's generation changes whenever it gets other
   content, so that whoever still read it is told, as by its digest.
3. Slots are a tenant's, whose blocks they hold. A tenant has a bound of its own; below it, the tenant that holds most
   gives way when all are taken, with its least recently used block. So nobody loses a block to one who holds as many,
   and whoever holds less than an equal part keeps it.

Pure: knows nothing of the bytes, and the time is an argument.
"""

import itertools
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from twinfer.core.block_hash import BlockHash
from twinfer.core.ids import TenantId
from twinfer.core.load import HostCounts
from twinfer.kv.block_log import BlockLog


@dataclass(frozen=True, slots=True)
class HostHold:
    """Slots that stay as they are until they are released, or their time is over.

    Attributes:
        number: of this hold.
        slots: in the order of the hashes that were asked for.
        digests: of the bytes in each.
    """

    number: int
    slots: tuple[int, ...]
    digests: tuple[int, ...]


@dataclass(slots=True)
class _Slot:
    number: int
    block_hash: BlockHash
    tenant: TenantId
    digest: int = 0
    holders: int = 0


class HostTier:
    """Accounts for ``num_slots`` slots.

    Args:
        first: number of the first slot: those before are blocks of the pool, in the same memory.
        max_per_tenant: slots of one tenant at most.
        log: told what can be found here; shared with the pool, since a block in either tier is here.
    """

    def __init__(self, first: int, num_slots: int, max_per_tenant: int, log: BlockLog) -> None:
        self.first = first
        self.num_slots = num_slots
        self.max_per_tenant = max_per_tenant
        self._log = log
        self._free = list(range(first + num_slots - 1, first - 1, -1))
        self._filling: dict[BlockHash, _Slot] = {}
        self._found: dict[BlockHash, _Slot] = {}
        self._idle: dict[TenantId, OrderedDict[BlockHash, _Slot]] = {}
        """Of each tenant, the least recently used first."""
        self._num: Counter[TenantId] = Counter()
        self._generations = [0] * num_slots
        self._holds: dict[int, tuple[tuple[_Slot, ...], float]] = {}
        self._numbers = itertools.count()
        self.num_evicted = 0
        """Blocks that gave way so far."""

    def counts(self) -> HostCounts:
        """How many slots are in each state."""
        free, cached, filling = len(self._free), sum(map(len, self._idle.values())), len(self._filling)
        held = self.num_slots - free - cached - filling
        return HostCounts(self.num_slots, free, cached, held, filling)

    def num_of(self, tenant: TenantId) -> int:
        """Slots that hold a tenant's blocks, or will."""
        return self._num[tenant]

    def reserve(self, block_hash: BlockHash, tenant: TenantId) -> int | None:
        """A slot to be filled with a tenant's block; ``None`` when it is here already, or nobody has to give way."""
        known = self._found.get(block_hash)
        if known is not None:
            self._touch(known)
            return None
        if block_hash in self._filling:
            return None
        if self._num[tenant] >= self.max_per_tenant or not self._free:
            victim = self._victim(tenant)
            if victim is None:
                return None
            self._evict(victim)
        slot = _Slot(self._free.pop(), block_hash, tenant)
        self._generations[slot.number - self.first] += 1
        self._filling[block_hash] = slot
        self._num[tenant] += 1
        return slot.number

    def fill(self, block_hash: BlockHash, digest: int) -> None:
        """A reserved slot holds its block, whose bytes have this digest: it is found from now on."""
        slot = self._filling.pop(block_hash)
        slot.digest = digest
        self._found[block_hash] = slot
        self._rest(slot)
        self._log.stored(block_hash)

    def count_match(self, hashes: Iterable[BlockHash]) -> int:
        """Length of the run that :meth:`hold` would hold."""
        return sum(1 for _ in itertools.takewhile(self._found.__contains__, hashes))

    def hold(self, hashes: Sequence[BlockHash], until: float) -> HostHold | None:
        """Hold the longest run of blocks with these hashes, from the first; ``None`` when that one is not here."""
        slots = tuple(self._found[block_hash] for block_hash in hashes[: self.count_match(hashes)])
        if not slots:
            return None
        for slot in slots:
            if not slot.holders:
                self._unrest(slot)
            slot.holders += 1
        number = next(self._numbers)
        self._holds[number] = (slots, until)
        return HostHold(number, tuple(slot.number for slot in slots), tuple(slot.digest for slot in slots))

    def release(self, hold: HostHold) -> None:
        """Give up a hold. Later blocks go first when room is needed, so prefixes live longest. Safe to repeat."""
        self._let_go(hold.number)

    def expire(self, now: float) -> None:
        """Give up the holds whose time is over."""
        for number in [number for number, (_, until) in self._holds.items() if until <= now]:
            self._let_go(number)

    def discard(self, hold: HostHold, index: int) -> None:
        """The bytes in a slot of a hold are not what they were: its block is found no more."""
        slots, _ = self._holds.get(hold.number, ((), 0.0))
        if slots and self._found.get(slots[index].block_hash) is slots[index]:
            del self._found[slots[index].block_hash]
            self._log.gone(slots[index].block_hash)

    def generations(self, slots: Iterable[int]) -> tuple[int, ...]:
        """How often each slot got content."""
        return tuple(self._generations[slot - self.first] for slot in slots)

    def _victim(self, tenant: TenantId) -> _Slot | None:
        """The least recently used block of the tenant that holds most, if that is more than this one, or its own."""
        own = self._num[tenant]
        bounded = own >= self.max_per_tenant
        givers = [one for one in self._idle if one == tenant or (not bounded and self._num[one] > own)]
        if not givers:
            return None
        return next(iter(self._idle[max(givers, key=self._num.__getitem__)].values()))

    def _evict(self, slot: _Slot) -> None:
        self.num_evicted += 1
        self._unrest(slot)
        del self._found[slot.block_hash]
        self._log.gone(slot.block_hash)
        self._vacate(slot)

    def _vacate(self, slot: _Slot) -> None:
        self._free.append(slot.number)
        self._num[slot.tenant] -= 1
        if not self._num[slot.tenant]:
            del self._num[slot.tenant]

    def _let_go(self, number: int) -> None:
        slots, _ = self._holds.pop(number, ((), 0.0))
        for slot in reversed(slots):
            slot.holders -= 1
            if slot.holders:
                continue
            if self._found.get(slot.block_hash) is slot:
                self._rest(slot)
            else:
                self._vacate(slot)

    def _touch(self, slot: _Slot) -> None:
        if not slot.holders:
            self._idle[slot.tenant].move_to_end(slot.block_hash)

    def _rest(self, slot: _Slot) -> None:
        self._idle.setdefault(slot.tenant, OrderedDict())[slot.block_hash] = slot

    def _unrest(self, slot: _Slot) -> None:
        idle = self._idle[slot.tenant]
        del idle[slot.block_hash]
        if not idle:
            del self._idle[slot.tenant]
