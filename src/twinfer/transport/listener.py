"""A listening socket whose connections are each served on a thread of their own. An idle one costs nothing.

1. A connection that was accepted is a newcomer until its server calls ``settle``: it has shown who it is.
2. Newcomers have a deadline, and there are only so many: the oldest makes room for the next, so that connections
   which say nothing, or one byte at a time, keep nobody out.
3. ``close`` cuts all connections, and returns when all threads have ended.
"""

import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from twinfer.core.sparse_log import SparseLog

PATIENCE_S = 10.0
MAX_NEWCOMERS = 64
_MAX_CONNECTIONS = 256
_PAUSE_S = 0.1
"""Out of descriptors, say: the peer stays in the queue, and trying again at once would only spin."""

logger = logging.getLogger(__name__)

Settle: TypeAlias = Callable[[], None]


class Listener:
    """Accepts until closed.

    Args:
        server: a bound and listening socket, owned from now on.
        serve: talks to one peer until it leaves, and settles it; must handle ``OSError``, which is also what ``close``
            causes in it.
        name: of the threads.
        context: what to wrap a connection in TLS with, asked for each; the handshake is the server's to make.
        patience_s: time for a newcomer to settle.
    """

    def __init__(
        self,
        server: socket.socket,
        serve: Callable[[socket.socket, Settle], None],
        name: str,
        context: Callable[[], ssl.SSLContext] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._server = server
        self._serve = serve
        self._context = context
        self._patience_s = patience_s
        self._wake, self._woken = socket.socketpair()
        self._lock = threading.Lock()
        self._closed = False
        self._serving: dict[socket.socket, threading.Thread] = {}
        self._ending: list[threading.Thread] = []
        """That serve nobody any more and may not have ended yet."""
        self._newcomers: dict[socket.socket, float] = {}
        """With their deadlines, the next one first."""
        self._name = name
        self._complain = SparseLog(logger.warning)
        self._acceptor = threading.Thread(target=self._accept_all, name=f"{name}-accept", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Cut all connections, and return when all threads have ended. Safe to repeat."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for connection in self._serving:
                cut(connection)
            threads = (*self._serving.values(), *self._ending)
        self._wake.send(b"x")
        for thread in (self._acceptor, *threads):
            thread.join()
        for end in (self._server, self._wake, self._woken):
            end.close()

    def _accept_all(self) -> None:
        self._server.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select(self._cut_overdue())]
                if self._woken in ready:
                    return
                if not ready:
                    continue
                try:
                    connection, _ = self._server.accept()
                except OSError as error:
                    self._complain("%s could not accept a peer: %s", self._name, error)
                    time.sleep(_PAUSE_S)
                else:
                    self._begin(connection)

    def _cut_overdue(self) -> float | None:
        """End the newcomers whose time is over; seconds until the next one's is."""
        now = time.monotonic()
        with self._lock:
            while self._newcomers:
                connection, deadline = next(iter(self._newcomers.items()))
                if deadline > now:
                    return deadline - now
                self._cut_newcomer(connection, f"it did not say what it wants within {self._patience_s:g} s")
        return None

    def _cut_newcomer(self, connection: socket.socket, reason: str) -> None:
        """Its thread sees the end; the lock is held."""
        del self._newcomers[connection]
        self._complain("%s cut off %s: %s", self._name, _peer(connection), reason)
        cut(connection)

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(True)
        if self._context is not None:
            try:
                connection = self._context().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            except OSError as error:
                self._complain("%s lost a peer that left at once: %s", self._name, error)
                return
        thread = threading.Thread(target=self._run, args=(connection,), name=f"{self._name}-serve", daemon=True)
        with self._lock:
            if len(self._newcomers) >= MAX_NEWCOMERS:
                self._cut_newcomer(next(iter(self._newcomers)), "others wait to say what they want")
            room = not self._closed and len(self._serving) < _MAX_CONNECTIONS
            if room:
                self._serving[connection] = thread
                self._newcomers[connection] = time.monotonic() + self._patience_s
        if not room:
            self._complain("%s turned a peer away: it has %d connections already", self._name, _MAX_CONNECTIONS)
            connection.close()
            return
        try:
            thread.start()
        except RuntimeError as error:
            self._complain("%s turned a peer away: %s", self._name, error)
            with self._lock:
                self._forget(connection)
            connection.close()

    def _run(self, connection: socket.socket) -> None:
        try:
            self._serve(connection, lambda: self._settle(connection))
        finally:
            with self._lock:
                still_there = [thread for thread in self._ending if thread.is_alive()]
                self._ending = [*still_there, self._forget(connection)]
            connection.close()

    def _forget(self, connection: socket.socket) -> threading.Thread:
        """Its thread; the lock is held."""
        self._newcomers.pop(connection, None)
        return self._serving.pop(connection)

    def _settle(self, connection: socket.socket) -> None:
        with self._lock:
            self._newcomers.pop(connection, None)


def cut(connection: socket.socket) -> None:
    """Wake whoever reads or writes on it, from any thread; it stays to be closed by its owner.

    Not ``SSLSocket.shutdown``, which takes the cipher away under a thread that reads: it would go on reading the bare
    bytes. Under the cipher the connection just ends.
    """
    with contextlib.suppress(OSError):  # the peer was faster, or it is closed already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _peer(connection: socket.socket) -> str:
    try:
        return str(connection.getpeername() or "a local peer")
    except OSError:
        return "a peer that had left"
