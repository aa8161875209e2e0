"""The block pool under arbitrary use: no block lost, none shared by mistake, promises kept."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from twinfer.kv.block_pool import BlockPool, Borrowed

NUM_BLOCKS, MAX_PINNED = 12, 3


class PoolMachine(RuleBasedStateMachine):
    """Random allocations, shares, promises, releases and quarantines against a simple model."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS, MAX_PINNED)
        self.now = 0.0
        self.holds: list[list[int]] = []
        self.content: dict[int, bytes] = {}
        self.promises: list[int] = []
        self.quarantined: list[int] = []
        self.borrowed: list[Borrowed] = []
        self.next_hash = 0

    holdings = Bundle("holdings")

    @rule(target=holdings, num=st.integers(0, 6), publish=st.booleans())
    def allocate(self, num: int, publish: bool) -> list[int]:
        before = self.pool.num_available
        blocks = self.pool.allocate(num)
        assert (blocks is not None) == (num <= before)
        held = [block for hold in self.holds for block in hold]
        for block in blocks or []:
            assert block not in held
            assert block not in [one.block for one in self.borrowed]
            assert block not in self.quarantined
            self.content.pop(block, None)
            if publish:
                self.next_hash += 1
                self.content[block] = self.next_hash.to_bytes(16, "little")
                self.pool.publish(block, self.content[block], "owner")
        self.holds.append(blocks or [])
        return self.holds[-1]

    @rule(target=holdings, source=holdings, limit=st.integers(0, 4))
    def share(self, source: list[int], limit: int) -> list[int]:
        hashes = [self.content[block] for block in source if block in self.content]
        blocks = self.pool.match(hashes, limit)
        assert len(blocks) <= limit
        for block, block_hash in zip(blocks, hashes, strict=False):
            assert self.content[block] == block_hash
        self.holds.append(blocks)
        return blocks

    @rule(source=holdings, owner=st.sampled_from("ab"), ttl=st.integers(1, 3))
    def pin(self, source: list[int], owner: str, ttl: int) -> None:
        hashes = [self.content[block] for block in source if block in self.content]
        before = self.pool.num_available
        assert self.pool.pin(hashes, owner, self.now + ttl) <= len(hashes)
        assert before == self.pool.num_available

    @rule(num=st.integers(1, 4), spare=st.integers(0, NUM_BLOCKS))
    def borrow(self, num: int, spare: int) -> None:
        for block, block_hash, owner in self.pool.borrow(min(num, self.pool.num_uncopied(spare))):
            assert (self.content[block], owner) == (block_hash, "owner")
            self.borrowed.append(Borrowed(block, block_hash, owner))

    @rule()
    def give_back(self) -> None:
        self.pool.give_back(self.borrowed)
        self.borrowed = []

    @rule(passed=st.integers(0, 2))
    def unpin(self, passed: int) -> None:
        self.now += passed
        before = self.pool.num_available
        self.pool.unpin(self.now)
        assert before == self.pool.num_available
        assert self.pool.next_unpin > self.now

    @rule(blocks=consumes(holdings))
    def release(self, blocks: list[int]) -> None:
        self.remove(blocks)
        self.pool.release(blocks)

    @rule(blocks=consumes(holdings))
    def quarantine(self, blocks: list[int]) -> None:
        others = [block for hold in self.holds for block in hold]
        others += [one.block for one in self.borrowed]
        if any(others.count(block) > 1 for block in blocks):
            self.remove(blocks)
            self.pool.release(blocks)
            return
        self.remove(blocks)
        self.pool.quarantine(blocks)
        for block in blocks:
            self.content.pop(block, None)
        self.quarantined += blocks

    @rule()
    def cleanse(self) -> None:
        self.pool.cleanse(self.quarantined)
        self.quarantined = []

    @rule(num=st.integers(0, 6))
    def promise(self, num: int) -> None:
        before = self.pool.num_available
        kept = self.pool.promise(num)
        assert kept == (num <= before)
        if kept:
            self.promises.append(num)

    @rule(target=holdings, bind=st.booleans())
    def settle(self, bind: bool) -> list[int]:
        if not self.promises:
            return self.hold([])
        num = self.promises.pop()
        if bind:
            blocks = self.pool.bind(num)
            for block in blocks:
                self.content.pop(block, None)
            return self.hold(blocks)
        self.pool.unpromise(num)
        return self.hold([])

    def hold(self, blocks: list[int]) -> list[int]:
        self.holds.append(blocks)
        return blocks

    def remove(self, blocks: list[int]) -> None:
        index = next(i for i, hold in enumerate(self.holds) if hold is blocks)
        del self.holds[index]

    @invariant()
    def accounts_balance(self) -> None:
        counts = self.pool.counts()
        assert NUM_BLOCKS == counts.free + counts.cached + counts.live + counts.quarantined
        borrowed = {one.block for one in self.borrowed}
        assert len({block for hold in self.holds for block in hold} | borrowed) == counts.live
        assert len(self.quarantined) == counts.quarantined
        assert sum(self.promises) == counts.promised
        assert counts.promised <= counts.free + counts.cached
        assert counts.pinned <= min(2 * MAX_PINNED, counts.cached + counts.live)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_least_recently_used_goes_first() -> None:
    """Eviction takes the block released longest ago, and of one sequence its last block first."""
    pool = BlockPool(4)
    first, second = pool.allocate(2), pool.allocate(2)
    assert first is not None
    assert second is not None
    for block in first + second:
        pool.publish(block, bytes([block]) * 16)
    pool.release(second)
    pool.release(first)
    assert [second[1], second[0], first[1]] == pool.allocate(3)
    assert [first[0]] == pool.match([bytes([first[0]]) * 16], 1)


def test_spare_blocks_go_first() -> None:
    """A block that was borrowed for its copy stays colder than all that were not; a hit makes it like any other."""
    pool = BlockPool(4)
    blocks = pool.allocate(4)
    assert blocks is not None
    hashes = [bytes([block]) * 16 for block in blocks]
    for block, block_hash in zip(blocks, hashes, strict=True):
        pool.publish(block, block_hash, "owner")
    pool.release(blocks)
    assert pool.num_uncopied(3) == 3
    borrowed = pool.borrow(2)
    assert [Borrowed(block, hashes[block], "owner") for block in (blocks[3], blocks[2])] == borrowed
    assert pool.num_uncopied(3) == 2
    shared = pool.match([hashes[2]], 1)
    pool.give_back(borrowed)
    assert (pool.counts().live, pool.num_uncopied(3)) == (1, 2)
    pool.release(shared)
    assert [blocks[3], blocks[1], blocks[0], blocks[2]] == pool.allocate(4)


def test_first_block_of_a_hash_stays_the_one_found() -> None:
    """Two sequences that computed the same prefix at once do not disturb each other."""
    pool = BlockPool(2)
    blocks = pool.allocate(2)
    assert blocks is not None
    for block in blocks:
        pool.publish(block, b"h" * 16)
    assert [blocks[0]] == pool.match([b"h" * 16], 1)
    pool.release([blocks[1]])
    assert 1 == pool.counts().free


def test_misuse_is_an_error() -> None:
    """Dropping more than was promised, and publishing a block that nobody holds, are bugs and say so."""
    pool = BlockPool(2)
    with pytest.raises(ValueError, match="only 0 are promised"):
        pool.unpromise(1)
    with pytest.raises(ValueError, match="not live"):
        pool.publish(0, b"h" * 16)


def test_generation_changes_when_the_last_holder_lets_go() -> None:
    """Not before, and not when somebody else takes the block."""
    pool = BlockPool(4)
    blocks = pool.allocate(2)
    assert blocks is not None
    hashes = [b"a" * 16, b"b" * 16]
    for block, block_hash in zip(blocks, hashes, strict=True):
        pool.publish(block, block_hash)
    assert pool.match(hashes[:1], 1) == blocks[:1]
    pool.release(blocks)
    assert pool.generations(blocks) == (0, 1)
    pool.release(blocks[:1])
    assert pool.generations(blocks) == (1, 1)
    assert pool.match(hashes, 2) == blocks
    assert pool.generations(blocks) == (1, 1)
    pool.quarantine(blocks)
    assert pool.generations(blocks) == (2, 2)
