"""The deployment's processes: found by name at every use, since their ids change, and never left stopped."""

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Sequence
from pathlib import Path

from twinfer.chaos.plan import GATEWAY
from twinfer.cluster.deployment import DeploymentRecord, is_running, read_record
from twinfer.core.errors import ConfigError, ProtocolError, WorkerLost
from twinfer.core.ids import RequestId, WorkerId
from twinfer.core.messages import Frame, Isolate, Refused
from twinfer.rpc.client import connect

HEAL_S = 30.0
"""A worker says that its isolation is over within that time after its end."""


class Processes:
    """Sends signals to the children of one ``twinfer serve``, and to nothing else.

    Args:
        path: of the deployment's description.
        record: its content at the beginning.
    """

    def __init__(self, path: Path, record: DeploymentRecord) -> None:
        self._path = path
        self.record = record
        self._stopped: list[int] = []

    @property
    def targets(self) -> dict[str, Sequence[str]]:
        """Names of the processes that can be disturbed, by role."""
        found: dict[str, list[str]] = {}
        for worker, its in self.record.workers.items():
            if worker in self.record.pids:
                found.setdefault(its.role, []).append(worker)
        return {**found, GATEWAY: [GATEWAY]}

    def pids(self) -> dict[str, int]:
        """Process ids of this moment, by name.

        Raises:
            ConfigError: the deployment has ended.
        """
        return read_record(self._path).pids

    def is_up(self, name: str) -> bool:
        """Whether it runs, as a child of this deployment."""
        return is_running(self.pids()[name], self.record.supervisor)

    def kill(self, name: str) -> None:
        """SIGKILL.

        Raises:
            WorkerLost: it does not run.
        """
        handle = self._open(name)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)

    def stop(self, name: str) -> None:
        """SIGSTOP; ``resume`` must follow.

        Raises:
            WorkerLost: it does not run.
        """
        handle = self._open(name)
        self._stopped.append(handle)
        signal.pidfd_send_signal(handle, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to all that were stopped, orphans included. Safe to repeat."""
        while self._stopped:
            handle = self._stopped.pop()
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGCONT)
            os.close(handle)

    async def isolate(self, worker: str, seconds: float) -> None:
        """Cut a worker off from the other workers, and return when that is over.

        Raises:
            ConfigError: the deployment does not allow it.
            WorkerLost: the worker died meanwhile, or does not say that it is over.
        """
        address, key = self.record.workers[WorkerId(worker)].address, bytes.fromhex(self.record.cluster_key)
        client = connect(address, key, keepalive_s=HEAL_S)
        request_id = RequestId(f"chaos-{uuid.uuid4()}")
        try:
            stream = client.gateway_stream()
            stream.send_soon(Isolate(request_id, seconds))
            async with asyncio.timeout(seconds + HEAL_S):
                async for message in stream:
                    if isinstance(message, Refused) and message.request_id == request_id:
                        raise ConfigError(f"{worker} refuses to be isolated: {message.reason}")
                    if isinstance(message, Frame) and request_id in {done.request_id for done in message.done}:
                        return
        except TimeoutError as error:
            raise WorkerLost(f"{worker} did not say within {HEAL_S:g} s that its isolation was over") from error
        except ProtocolError as error:
            raise ConfigError(f"{worker} does not take this deployment's key: {error}") from error
        finally:
            await client.close()
        raise WorkerLost(f"{worker} ended while it was isolated")

    def _open(self, name: str) -> int:
        """A descriptor of the process, which no later process of that id can be mistaken for."""
        pid = self.pids()[name]
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError as error:
            raise WorkerLost(f"{name} does not run") from error
        if not is_running(pid, self.record.supervisor):
            os.close(handle)
            raise WorkerLost(f"{name} does not run")
        return handle
