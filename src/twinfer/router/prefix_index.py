"""Which worker has how much of a prompt: block hashes of all workers, as they tell.

1. A worker's first events are everything it has; from then on only what changes, numbered.
2. Events whose number is not the next one, or that are not sound, show a gap: nothing is believed of that worker, and
   it counts as empty, until it has sent everything again. Whoever applies events asks it to.
3. A prompt is hashed as far as any worker has it, and one block further. Hashes are salted by tenant and cache salt:
   only requests of the same tenant can find a block, and whoever asks learns of none but its own.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from twinfer.core.block_events import BlockEvents
from twinfer.core.block_hash import BlockHash, BlockHasher
from twinfer.core.capabilities import Capabilities, Fingerprint, WorkerIdentity
from twinfer.core.ids import Epoch, ModelId, WorkerId
from twinfer.core.request import GenerationRequest

MakeHasher = Callable[[bytes, Fingerprint, str, int], BlockHasher]


@dataclass(slots=True)
class _Known:
    """One start of a worker, as far as it is known."""

    epoch: Epoch
    bit: int
    kin: "_Kin"
    next: int | None = None
    blocks: set[BlockHash] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Kin:
    """Workers that name the same tokens alike."""

    model: ModelId
    hasher: BlockHasher
    bits: int = 0


class PrefixIndex:
    """The prefix caches of all workers of one gateway.

    Args:
        key: the cluster's, which workers name blocks by.
        make_hasher: names them.
    """

    def __init__(self, key: bytes, make_hasher: MakeHasher = BlockHasher) -> None:
        self._key = key
        self._make_hasher = make_hasher
        self._known: dict[WorkerId, _Known] = {}
        self._kin: dict[tuple[ModelId, Fingerprint, str, int], _Kin] = {}
        self._by_bit: dict[int, WorkerId] = {}
        self._holders: dict[BlockHash, int] = {}

    def __len__(self) -> int:
        """How many different blocks there are."""
        return len(self._holders)

    def met(self, identity: WorkerIdentity) -> None:
        """A worker is there; another start of it begins with nothing."""
        known = self._known.get(identity.worker)
        if known is not None and known.epoch == identity.epoch:
            return
        self.lost(identity.worker)
        kin = self._kin_of(identity.capabilities)
        bit = next(bit for bit in _bits() if bit not in self._by_bit)
        self._by_bit[bit] = identity.worker
        kin.bits |= bit
        self._known[identity.worker] = _Known(identity.epoch, bit, kin)

    def lost(self, worker: WorkerId) -> None:
        """A worker is gone."""
        known = self._known.pop(worker, None)
        if known is not None:
            self._clear(known)
            known.kin.bits &= ~known.bit
            del self._by_bit[known.bit]

    def apply(self, worker: WorkerId, events: BlockEvents) -> bool:
        """A worker tells; false when it has to be asked for everything."""
        known = self._known.get(worker)
        if known is None:
            return True
        if not events.is_sound or not (events.everything or events.first == known.next):
            self._clear(known)
            known.next = None
            return False
        if events.everything:
            self._clear(known)
            for block in events.blocks():
                self._store(known, block)
        else:
            for block, gone in zip(events.blocks(), events.gone, strict=True):
                (self._drop if gone else self._store)(known, block)
        known.next = events.next
        return True

    def hits(self, request: GenerationRequest) -> dict[WorkerId, int]:
        """Tokens at a prompt's beginning whose KV a worker has; workers that have none are left out."""
        found: dict[WorkerId, int] = {}
        for kin in self._kin.values():
            if kin.bits and kin.model == request.model:
                for bits, num_blocks in self._runs(_chain(kin.hasher, request), kin.bits):
                    tokens = min(num_blocks * kin.hasher.block_tokens, len(request.prompt) - 1)
                    found.update((worker, tokens) for worker in self._workers(bits))
        return found

    def _runs(self, chain: Iterable[BlockHash], bits: int) -> Iterator[tuple[int, int]]:
        """Who has how many blocks from the first on."""
        depth = 0
        for block in chain:
            still = bits & self._holders.get(block, 0)
            if depth and still != bits:
                yield bits & ~still, depth
            bits = still
            if not bits:
                return
            depth += 1
        if depth:
            yield bits, depth

    def _workers(self, bits: int) -> Iterator[WorkerId]:
        while bits:
            lowest = bits & -bits
            yield self._by_bit[lowest]
            bits ^= lowest

    def _kin_of(self, capabilities: Capabilities) -> _Kin:
        size = capabilities.layout.block_tokens
        names = (capabilities.model, capabilities.fingerprint, capabilities.provenance, size)
        if names not in self._kin:
            self._kin[names] = _Kin(capabilities.model, self._make_hasher(self._key, *names[1:]))
        return self._kin[names]

    def _store(self, known: _Known, block: BlockHash) -> None:
        known.blocks.add(block)
        self._holders[block] = self._holders.get(block, 0) | known.bit

    def _drop(self, known: _Known, block: BlockHash) -> None:
        if block in known.blocks:
            known.blocks.remove(block)
            left = self._holders[block] & ~known.bit
            if left:
                self._holders[block] = left
            else:
                del self._holders[block]

    def _clear(self, known: _Known) -> None:
        for block in tuple(known.blocks):
            self._drop(known, block)


def _bits() -> Iterator[int]:
    bit = 1
    while True:
        yield bit
        bit <<= 1


def _chain(hasher: BlockHasher, request: GenerationRequest) -> Iterator[BlockHash]:
    """The hashes of a prompt's full blocks, each only when it is asked for."""
    size, parent = hasher.block_tokens, hasher.root(request.tenant, request.cache_salt)
    for end in range(size, len(request.prompt) + 1, size):
        parent = hasher.extend(parent, request.prompt[end - size : end])
        yield parent
