"""A pool's memory: sealed against peers, prefaulted in the background, freed when nobody looks at it any more."""

import gc
import mmap
import os
import sys
import threading

import numpy as np
import pytest

from twinfer.kv.memory import PoolMemory

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="memfd is Linux's")


def resident_pages(name: str) -> int:
    """Resident KiB of this process's mappings of that name."""
    with open("/proc/self/smaps") as smaps:
        lines = smaps.read().splitlines()
    found = [index for index, line in enumerate(lines) if f"/memfd:{name}" in line]
    return sum(int(line.split()[1]) for i in found for line in lines[i + 1 : i + 8] if line.startswith("Rss:"))


def prefault_threads() -> list[threading.Thread]:
    """Prefaulting threads that run now."""
    return [thread for thread in threading.enumerate() if thread.name == "kv-prefault"]


def test_blocks_are_slices_of_the_pool():
    """Block i is bytes [i * block_bytes, (i + 1) * block_bytes), writable in place; others do not exist."""
    memory = PoolMemory(3, 5, prefault=False)
    memory.block(1)[:] = b"abcde"
    assert bytes(memory.view) == b"\0" * 5 + b"abcde" + b"\0" * 5
    assert (memory.size, memory.num_blocks, memory.block_bytes) == (15, 3, 5)
    for index in (-1, 3):
        with pytest.raises(IndexError, match="not in a pool of 3"):
            memory.block(index)
    memory.close()


@pytest.mark.parametrize(("num_blocks", "block_bytes"), [(0, 4), (4, 0), (-1, 4)])
def test_an_empty_pool_is_refused(num_blocks: int, block_bytes: int):
    """A pool without bytes is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least one block"):
        PoolMemory(num_blocks, block_bytes)


@linux_only
def test_nobody_can_write_resize_or_unseal_the_file():
    """Whoever is passed the descriptor maps it read-only or not at all, while our own mapping stays writable."""
    import fcntl

    memory = PoolMemory(2, mmap.PAGESIZE, prefault=False)
    assert memory.fd is not None
    with pytest.raises(PermissionError):
        mmap.mmap(memory.fd, memory.size)
    with pytest.raises(PermissionError):
        os.pwrite(memory.fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.fd, 1)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.fd, memory.size + 1)
    with pytest.raises(PermissionError):
        fcntl.fcntl(memory.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    memory.view[:3] = b"new"
    with mmap.mmap(memory.fd, memory.size, prot=mmap.PROT_READ) as peer:
        assert peer[:3] == b"new"
    memory.close()


@linux_only
def test_prefault_touches_every_page_and_changes_none():
    """When the background thread is through, all pages are resident and hold what was written meanwhile."""
    memory = PoolMemory(3, 3 << 20)
    memory.view[-5:] = b"hello"
    for thread in prefault_threads():
        thread.join()
    assert resident_pages("twinfer-kv") >= memory.size // 1024
    assert bytes(memory.view[-5:]) == b"hello"
    assert not any(memory.view[: 1 << 16])
    memory.close()


def test_close_stops_the_prefault_and_returns_everything():
    """After close, in the middle of a prefault or not, no thread and no descriptor is left; again does nothing."""
    before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    memory = PoolMemory(64, 1 << 20)
    memory.close()
    memory.close()
    assert prefault_threads() == []
    assert memory.fd is None
    if sys.platform == "linux":
        assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ValueError, match="released"):
        memory.block(0)


def test_aliases_survive_close():
    """An array over the pool stays valid after close, and the mapping goes with it."""
    memory = PoolMemory(2, 8, prefault=False)
    array = np.frombuffer(memory.block(1), dtype=np.uint8)
    memory.close()
    array[:] = 7
    assert array.tolist() == [7] * 8
    del array
    gc.collect()
    memory.close()
