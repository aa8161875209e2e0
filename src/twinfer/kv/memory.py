"""The bytes of one worker's KV pool, ``num_blocks`` blocks of ``block_bytes`` one after the other.

1. They lie in a ``memfd``, an anonymous file of this process: a peer on the same machine maps the file it is passed,
   and nothing stays behind when both are gone, however they ended.
2. The file is sealed after our own writable mapping exists, so a peer can neither resize nor write it: it maps it for
   reading only, or not at all.
3. Pages come into being at first touch, which is slow on virtual machines (0.15 GB/s measured). A background thread
   touches them in pieces, beside real use: ``MADV_POPULATE_WRITE`` keeps what a page holds.

Where the system has no memfd, the pool is anonymous memory, ``fd`` is ``None``, and KV leaves over a socket.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import sys
import threading

if sys.platform == "linux":
    import fcntl

_F_SEAL_FUTURE_WRITE = 0x10
"""<linux/fcntl.h>: no new writable mapping, no write(); mappings that exist keep working. Not in Python 3.11."""
_MADV_POPULATE_WRITE = 23
"""<linux/mman.h>, since Linux 5.14. Python's own ``mmap.madvise`` would hold the GIL meanwhile."""
_PREFAULT_PIECE_BYTES = 4 << 20


class PoolMemory:
    """Owner of a pool's bytes.

    ``close`` returns the memory unless arrays or tensors still alias it; then it goes with the last of them and this
    object.

    Args:
        num_blocks: blocks in the pool, at least one.
        block_bytes: size of one block.
        prefault: whether to touch all pages in the background.
    """

    def __init__(self, num_blocks: int, block_bytes: int, prefault: bool = True) -> None:
        if num_blocks < 1 or block_bytes < 1:
            raise ValueError(f"a pool needs at least one block of one byte, not {num_blocks} of {block_bytes}")
        self.num_blocks = num_blocks
        self.block_bytes = block_bytes
        self.size = num_blocks * block_bytes
        self.fd, self._mapping = _allocate(self.size)
        self.view = memoryview(self._mapping)
        self._prefault = _Prefault(self._mapping) if prefault else None

    def block(self, index: int) -> memoryview:
        """The writable bytes of one block.

        Raises:
            IndexError: there is no such block.
        """
        if not 0 <= index < self.num_blocks:
            raise IndexError(f"block {index} is not in a pool of {self.num_blocks}")
        return self.view[index * self.block_bytes : (index + 1) * self.block_bytes]

    def close(self) -> None:
        """Stop prefaulting and let go of the memory. Safe to repeat."""
        if self._prefault is not None:
            self._prefault.stop()
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
        # BufferError: somebody still aliases the mapping, and its last alias will free it instead.
        with contextlib.suppress(BufferError):
            self.view.release()
            self._mapping.close()


def _allocate(size: int) -> tuple[int | None, mmap.mmap]:
    if sys.platform != "linux":
        return None, mmap.mmap(-1, size)
    fd = os.memfd_create("twinfer-kv", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        mapping = mmap.mmap(fd, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(fd)
        raise
    return fd, mapping


class _Prefault:
    """Touches every page of a mapping on a thread of lowest priority, as far as the kernel knows how."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(mapping,), name="kv-prefault", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return when the thread has ended and no longer holds the mapping."""
        self._stopping.set()
        self._thread.join()

    def _run(self, mapping: mmap.mmap) -> None:
        if sys.platform != "linux":
            return
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # on Linux: of this thread only
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        first = ctypes.c_char.from_buffer(mapping)
        start, size, offset = ctypes.addressof(first), len(mapping), 0
        while offset < size and not self._stopping.is_set():
            length = min(_PREFAULT_PIECE_BYTES, size - offset)
            if libc.madvise(start + offset, length, _MADV_POPULATE_WRITE) == 0:
                offset += length
            elif ctypes.get_errno() not in (errno.EINTR, errno.EAGAIN):
                return  # an older kernel, or memory is short: pages come at first touch instead
