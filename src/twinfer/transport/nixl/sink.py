"""The sink's end: a lane for every pull, kept for the next one if the pull ended well.

A lane whose pull did not may still be written into, so it is not used again: a thread of its own destroys the agent,
and the next pull opens another lane, which takes some milliseconds.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import TransportError
from twinfer.core.ids import HandoffId
from twinfer.transport.base import CONNECT_TIMEOUT_S, check_destinations
from twinfer.transport.digest import new_hasher
from twinfer.transport.gate import Pace, PullGate, RunningPull
from twinfer.transport.nixl.agent import NixlError
from twinfer.transport.nixl.doorbell import shown
from twinfer.transport.nixl.lane import Lane
from twinfer.transport.nixl.library import LOOPBACK, Fabric, check_fabric
from twinfer.transport.nixl.source import NIXL_CAPABILITIES
from twinfer.transport.tcp import wire
from twinfer.transport.throttle import unlimited

_MAX_IDLE_LANES = 1
_CLOSE_TIMEOUT_S = 2.0


class _Disposal:
    """Closes lanes on threads of their own: nobody has to wait until NIXL lets go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def dispose(self, lane: Lane) -> None:
        """Close it soon."""
        thread = threading.Thread(target=lane.close, name="kv-nixl-close", daemon=True)
        thread.start()
        with self._lock:
            self._threads = [thread, *(each for each in self._threads if each.is_alive())]

    def wait(self) -> None:
        """Return when all are closed, or after a while."""
        with self._lock:
            threads = tuple(self._threads)
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


class NixlPeer:
    """Lanes to one source that no pull uses now."""

    def __init__(self, endpoint: Endpoint, block_bytes: int, fabric: Fabric, disposal: _Disposal) -> None:
        self.endpoint = endpoint
        self.block_bytes = block_bytes
        self.where = shown(endpoint.address)
        self._fabric = fabric
        self._disposal = disposal
        self._lock = threading.Lock()
        self._idle: list[Lane] = []
        self._closed = False

    def take(self) -> Lane:
        """An idle lane, or a new one that has reached nobody yet.

        Raises:
            TransportError: this peer is closed, or its address damaged.
            NixlError: there can be no agent.
        """
        with self._lock:
            if self._closed:
                raise TransportError(f"the connection to {self.where} is closed")
            while self._idle:
                lane = self._idle.pop()
                if lane.is_fresh:
                    return lane
                self._disposal.dispose(lane)
        return Lane(self.endpoint, self.block_bytes, self._fabric)

    def give(self, lane: Lane) -> None:
        """Take back a lane on which nothing is under way."""
        with self._lock:
            if not self._closed and len(self._idle) < _MAX_IDLE_LANES:
                self._idle.append(lane)
                return
        self._disposal.dispose(lane)

    def close(self) -> None:
        """Close what is idle; lanes in use follow when their pulls end."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for lane in idle:
            self._disposal.dispose(lane)


class NixlSink:
    """Pulls through NIXL.

    Args:
        fabric: the network to pull over.
        pace: slows the link down, for experiments.

    Raises:
        ConfigError: NIXL is not here, or strangers could reach it.
    """

    capabilities = NIXL_CAPABILITIES

    def __init__(self, fabric: Fabric = LOOPBACK, pace: Pace = unlimited) -> None:
        check_fabric(fabric)
        self._fabric = fabric
        self._pace = pace
        self._gate = PullGate()
        self._disposal = _Disposal()

    def connect(self, endpoint: Endpoint, block_bytes: int) -> NixlPeer:
        """Open a first lane; see ``KVSink``."""
        peer = NixlPeer(endpoint, block_bytes, self._fabric, self._disposal)
        with self._lane(peer) as lane:
            # The time begins now: the first lane of a process had to load NIXL.
            attempt = RunningPull(
                f"the connection to the KV source at {peer.where}", time.monotonic() + CONNECT_TIMEOUT_S
            )
            with _translated(attempt):
                lane.prepare(attempt)
        return peer

    def admit(self, handoff: HandoffId) -> None:
        """Bytes of this handoff may land."""
        self._gate.admit(handoff)

    def pull(
        self,
        peer: NixlPeer,
        handoff: HandoffId,
        source_blocks: Sequence[int],
        destinations: Sequence[memoryview],
        deadline: float,
        *,
        digest: bool = True,
    ) -> int:
        """Read, and copy to the destinations; see ``KVSink``."""
        check_destinations(source_blocks, destinations, peer)
        if len(source_blocks) > wire.MAX_BLOCKS:
            raise ValueError(f"a pull takes {wire.MAX_BLOCKS} blocks at most, not {len(source_blocks)}")
        with self._gate.run(handoff, peer.where, deadline) as pull:
            pull.check()
            if not source_blocks:
                return new_hasher(digest=digest).intdigest()
            with self._lane(peer) as lane, _translated(pull):
                lane.prepare(pull)
                return lane.run(handoff, source_blocks, destinations, pull, self._pace, new_hasher(digest=digest))

    def fence(self, handoff: HandoffId) -> None:
        """Nothing of this handoff lands after this returns."""
        self._gate.fence(handoff)

    def close(self) -> None:
        """Fence everything, and see that no agent is left."""
        self._gate.close()
        self._disposal.wait()

    @contextmanager
    def _lane(self, peer: NixlPeer) -> Iterator[Lane]:
        """A lane for the body, which is not used again if that raises."""
        try:
            lane = peer.take()
        except NixlError as error:
            raise TransportError(f"KV cannot be pulled over NIXL from {peer.where}: {error}") from error
        whole = False
        try:
            yield lane
            whole = True
        finally:
            peer.give(lane) if whole else self._disposal.dispose(lane)


@contextmanager
def _translated(pull: RunningPull) -> Iterator[None]:
    """The body is this pull; nothing stops it any more after it, and what it raises is a TransportError."""
    try:
        yield
        pull.finish()
    except TimeoutError as error:
        raise pull.fail("its deadline passed, or the peer hangs") from error
    except (OSError, wire.WireError, NixlError) as error:
        raise pull.fail(str(error)) from error
