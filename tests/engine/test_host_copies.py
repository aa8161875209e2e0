"""Copies between pool and host tier: what lies there afterwards, by its digest, and by way of a device."""

from collections.abc import Sequence

from tests.fakes import a_request
from twinfer.engine.host_copies import HostCopies
from twinfer.engine.host_exchange import CopyPlan, Filling, Storing
from twinfer.engine.sequence import Purpose, TokenSequence
from twinfer.kv.block_pool import Borrowed
from twinfer.transport.digest import digest_views

SIZE, NUM_BLOCKS = 64, 4


class Device:
    """A pool of its own, staged block by block in the memory."""

    def __init__(self, memory: bytearray) -> None:
        self.memory = memory
        self.blocks = [bytes([number]) * SIZE for number in range(NUM_BLOCKS)]

    def to_host(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self.memory[block * SIZE : (block + 1) * SIZE] = self.blocks[block]

    def from_host(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self.blocks[block] = bytes(self.memory[block * SIZE : (block + 1) * SIZE])


def digest(content: bytes) -> int:
    """What a block of these bytes must have."""
    return digest_views([memoryview(content)])


def test_there_and_back_by_way_of_a_device() -> None:
    """A block goes from the device to its slot, and from there into another block of the device."""
    memory = bytearray(2 * NUM_BLOCKS * SIZE)
    device = Device(memory)
    copies = HostCopies(memoryview(memory), SIZE, device)
    storings = (Storing(Borrowed(2, b"h", "t"), NUM_BLOCKS + 1), Storing(Borrowed(3, b"i", "t"), None))
    content = device.blocks[2]
    assert ([], [digest(content)]) == copies.make(CopyPlan((), storings))
    sequence = TokenSequence(a_request([1]), Purpose.ANSWER, 0.0)
    filling = Filling(sequence, (NUM_BLOCKS + 1,), (0,), (digest(content),))
    assert ([[digest(content)]], []) == copies.make(CopyPlan((filling,), ()))
    assert [content, bytes([1]) * SIZE, content] == device.blocks[:3]


def test_nothing_is_copied_after_a_wrong_block() -> None:
    """What follows it would be attended to together with it."""
    memory = bytearray(2 * NUM_BLOCKS * SIZE)
    copies = HostCopies(memoryview(memory), SIZE, Device(memory))
    good = digest(bytes(SIZE))
    sequence = TokenSequence(a_request([1]), Purpose.ANSWER, 0.0)
    filling = Filling(sequence, (4, 5, 6), (0, 1, 2), (good, good + 1, good))
    assert ([[good, good]], []) == copies.make(CopyPlan((filling,), ()))
