"""Measures the machine at hand: reading memory with all cores, copying into shared memory, TCP on loopback.

Every measurement is repeated; each repetition is one sample of a rate.
"""

import mmap
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from twinfer.core.clock import Clock

REPEATS = 7
SAMPLE_BYTES = 256 << 20
"""Moved in one sample: more than caches hold."""
CHUNK_BYTES = 2 << 20
"""One send over TCP, as large as a pull of KV."""


def read_rates(clock: Clock, threads: int, num_bytes: int = SAMPLE_BYTES) -> list[float]:
    """Bytes per second that all threads together read from memory, each its own part."""
    memory = np.ones(num_bytes // 8, dtype=np.int64)
    parts = np.array_split(memory, threads)
    with ThreadPoolExecutor(threads) as pool:
        return _rates(clock, memory.nbytes, lambda: list(pool.map(np.max, parts)))


def copy_rates(clock: Clock, num_bytes: int = SAMPLE_BYTES) -> list[float]:
    """Bytes per second that one thread copies into memory that another process could map."""
    handle = os.memfd_create("twinfer-measure")
    try:
        os.ftruncate(handle, num_bytes)
        with mmap.mmap(handle, num_bytes) as mapping:
            return _copy_into(mapping, clock, num_bytes)
    finally:
        os.close(handle)


def tcp_rates(clock: Clock, num_bytes: int = SAMPLE_BYTES) -> list[float]:
    """Bytes per second from one thread to another over a connection on loopback."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sender,
        server.accept()[0] as receiver,
    ):
        data, room = bytes(CHUNK_BYTES), memoryview(bytearray(CHUNK_BYTES))
        return _rates(clock, num_bytes, lambda: _pass(sender, receiver, data, room, num_bytes))


def matmul_rates(clock: Clock, size: int = 2048) -> list[float]:
    """Operations per second of a product of two FP32 matrices in numpy: a floor where there is no torch."""
    left = np.ones((size, size), dtype=np.float32)
    right = left.copy()
    return _rates(clock, 2 * size**3, lambda: left @ right)


def _copy_into(mapping: mmap.mmap, clock: Clock, num_bytes: int) -> list[float]:
    """Rates of copies into a mapping; its arrays are gone on return, so that it can be closed."""
    shared, own = np.frombuffer(mapping, dtype=np.uint8), np.ones(num_bytes, dtype=np.uint8)
    return _rates(clock, num_bytes, lambda: np.copyto(shared, own))


def _pass(sender: socket.socket, receiver: socket.socket, data: bytes, room: memoryview, num_bytes: int) -> None:
    """Send that many bytes from a thread, and take them all in here."""

    def send() -> None:
        for _ in range(0, num_bytes, len(data)):
            sender.sendall(data)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    left = -(-num_bytes // len(data)) * len(data)
    while left:
        taken = receiver.recv_into(room)
        if not taken:
            raise ConnectionError("the loopback connection ended early")
        left -= taken
    thread.join()


def _rates(clock: Clock, amount: float, act: Callable[[], object]) -> list[float]:
    """Amount per second of each repetition; the first warms up and is not counted."""
    act()
    rates = []
    for _ in range(REPEATS):
        started = clock.now()
        act()
        rates.append(amount / max(clock.now() - started, 1e-9))
    return rates
