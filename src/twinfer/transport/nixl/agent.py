"""One NIXL agent, used by one thread at a time.

A transfer that was begun cannot be stopped, except by destroying an agent at either end. So memory that is registered
here stays mapped until that has happened. Whatever refers to NIXL's own objects, a traceback through its code included,
would keep the agent alive: they are all held here, callers have numbers, and errors are raised anew.
"""

import ctypes
import itertools
import mmap
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from twinfer.transport.nixl.library import Fabric, load_nixl

Memory = mmap.mmap | memoryview
ResultT = TypeVar("ResultT")

_EAGER_S = 0.02
_EAGER_PERIOD_S = 1e-5
_SEDATE_PERIOD_S = 5e-4


class NixlError(Exception):
    """NIXL refused or failed. Raised and caught within this package."""


class Agent:
    """A name under which this process writes, or is written to.

    Args:
        name: unique, also over restarts.
        fabric: the network to use.
    """

    def __init__(self, name: str, fabric: Fabric) -> None:
        library = load_nixl(fabric)
        bindings = vars(library.nixlBind)
        self._errors = tuple(bindings[name] for name in bindings if name.startswith("nixl") and name.endswith("Error"))
        config = library.nixl_agent_config(enable_prog_thread=False, backends=[fabric.backend])
        self._nixl: Any = self._call(library.nixl_agent, name, config)
        self._memory: list[memoryview] = []
        self._writes: dict[int, Any] = {}
        self._numbers = itertools.count()
        if fabric.backend not in self._nixl.backends:
            raise NixlError(f"this build has no {fabric.backend} plugin")

    def register(self, memory: Memory) -> int:
        """Let writes begin or end in this memory; returns its address."""
        address = int(np.frombuffer(memory, np.uint8).ctypes.data)
        self._memory.append(memoryview(memory))  # while this exists nobody can unmap it
        self._call(self._nixl.register_memory, [(address, len(memory), 0, "")], "DRAM")
        return address

    def metadata(self) -> bytes:
        """What another agent must know to write to what has been registered."""
        return bytes(self._call(self._nixl.get_agent_metadata))

    def meet(self, metadata: bytes) -> str:
        """Learn of another agent; returns its name."""
        name = self._call(self._nixl.add_remote_agent, metadata)
        return name.decode() if isinstance(name, bytes) else str(name)

    def write(self, peer: str, moves: Sequence[tuple[int, int, int]]) -> int:
        """Begin to write to a peer's memory; returns a number for ``is_done``.

        Args:
            peer: whom we have met.
            moves: our address, theirs, and the number of bytes.
        """
        here, there = (
            self._nixl.get_xfer_descs(np.array([(move[side], move[2], 0) for move in moves], np.uint64), "DRAM")
            for side in (0, 1)
        )
        number = next(self._numbers)
        self._writes[number] = self._call(self._nixl.initialize_xfer, "WRITE", here, there, peer)
        self._call(self._nixl.transfer, self._writes[number])
        return number

    def is_done(self, number: int) -> bool:
        """Whether a write has landed; asking is also what moves it forward."""
        state = self._call(self._nixl.check_xfer_state, self._writes[number])
        if state == "DONE":
            self._call(self._writes.pop(number).release)
        elif state != "PROC":
            raise NixlError(f"a transfer ended with {state}")
        return bool(state == "DONE")

    def progress(self) -> None:
        """Do what peers wait for."""
        self._call(self._nixl.get_new_notifs)

    def close(self) -> None:
        """Destroy the agent: when this returns nothing lands through it, and nothing is read. Safe to repeat."""
        if self._nixl is None:
            return
        remains = weakref.ref(self._nixl.agent)
        self._writes.clear()
        self._nixl = None
        if remains() is not None:
            for memory in self._memory:  # better lost than written into when it is something else
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
        self._memory.clear()

    def _call(self, call: Callable[..., ResultT], *args: object) -> ResultT:
        try:
            return call(*args)
        except self._errors as error:
            reason = str(error)
        del call, args  # or a traceback through here would keep the agent alive
        raise NixlError(reason)


class Patience:
    """How to wait for NIXL, which can only be asked again and again: eagerly at first, then seldom, then no more.

    Its calls keep the GIL and take a microsecond, so ``rounds`` of them are made before others get to run.
    """

    rounds = range(8)

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._begin = time.monotonic()

    def wait(self) -> None:
        """Let others run.

        Raises:
            TimeoutError: the limit has passed.
        """
        waited = time.monotonic() - self._begin
        if waited > self._limit_s:
            raise TimeoutError(f"nothing moved for {self._limit_s} s")
        time.sleep(_EAGER_PERIOD_S if waited < _EAGER_S else _SEDATE_PERIOD_S)
