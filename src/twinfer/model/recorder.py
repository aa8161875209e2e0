"""Records what a device is told to do, so that it can be told again at once: the seam between decoding and CUDA graphs.

What is recorded must be the same whatever its inputs hold: no shape and no branch may depend on them. Tensors that it
reads and writes stay where they are; only what they hold changes.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

_WARM_UPS = 2
"""Libraries choose their kernels and allocate their workspaces in the first calls, which must not be recorded."""


class Recorder(Protocol):
    """Something that records."""

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Return what repeats ``work`` on what its inputs then hold; meanwhile it may be done, any number of times.

        The tensor that a repetition returns is overwritten by the next one.
        """
        ...


class Eager:
    """Records nothing and does the work again: right on every device, and no faster."""

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """See ``Recorder``."""
        return work


class CudaGraphs:
    """CUDA graphs that share one pool of memory, so at most one may run at a time. Has not been run on a GPU yet."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._memory = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """See ``Recorder``. Waits for the device; other threads may use it meanwhile."""
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UPS):
                    work()
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, self._memory, self._stream, capture_error_mode="thread_local"):
                result = work()

        def repeat() -> Tensor:
            graph.replay()
            return result

        return repeat


def recorder_for(device: torch.device) -> Recorder | None:
    """What records on a device; ``None`` where telling it once more costs next to nothing, as on a CPU."""
    return CudaGraphs(device) if device.type == "cuda" else None
