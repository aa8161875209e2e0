"""A listening socket whose connections are each served on a thread of their own. An idle one costs nothing."""

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable

_MAX_CONNECTIONS = 256
_PAUSE_S = 0.1
"""Out of descriptors, say: the peer stays in the queue, and trying again at once would only spin."""

logger = logging.getLogger(__name__)


class Listener:
    """Accepts until closed.

    Args:
        server: a bound and listening socket, owned from now on.
        serve: talks to one peer until it leaves; must handle ``OSError``, which is also what ``close`` causes in it.
        name: of the threads.
    """

    def __init__(self, server: socket.socket, serve: Callable[[socket.socket], None], name: str) -> None:
        self._server = server
        self._serve = serve
        self._wake, self._woken = socket.socketpair()
        self._lock = threading.Lock()
        self._closed = False
        self._serving: dict[socket.socket, threading.Thread] = {}
        self._name = name
        self._acceptor = threading.Thread(target=self._accept_all, name=f"{name}-accept", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Cut all connections, and return when all threads have ended. Safe to repeat."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for connection in self._serving:
                _shut(connection)
            threads = tuple(self._serving.values())
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
            while self._woken not in [key.fileobj for key, _ in selector.select()]:
                try:
                    connection, _ = self._server.accept()
                except OSError as error:
                    logger.warning("%s could not accept a peer: %s", self._name, error)
                    time.sleep(_PAUSE_S)
                else:
                    self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(True)
        thread = threading.Thread(target=self._run, args=(connection,), name=f"{self._name}-serve", daemon=True)
        with self._lock:
            room = not self._closed and len(self._serving) < _MAX_CONNECTIONS
            if room:
                self._serving[connection] = thread
        if room:
            thread.start()
        else:
            logger.warning("%s turned a peer away: it has %d connections already", self._name, _MAX_CONNECTIONS)
            connection.close()

    def _run(self, connection: socket.socket) -> None:
        try:
            self._serve(connection)
        finally:
            with self._lock:
                del self._serving[connection]
            connection.close()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer was faster
        connection.shutdown(socket.SHUT_RDWR)
