"""Devices beside the CPU that native engines are tested on: a GPU where there is one, and what stands in for it."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import torch

from twinfer.core.capabilities import Capabilities
from twinfer.engine.native import NativeRunner, native_runner, ready_runner, staged
from twinfer.model.paged_kv import pool_tensor
from twinfer.model.recorder import Eager
from twinfer.model.served import ServedModel

MakeRunner: TypeAlias = Callable[[ServedModel, Capabilities, str, memoryview, Path], NativeRunner]
Place: TypeAlias = tuple[str, MakeRunner]
"""A device's name and what makes runners on it."""


def stand_in(
    served: ServedModel, capabilities: Capabilities, device: str, memory: memoryview, cache_dir: Path
) -> NativeRunner:
    """A runner that does on the CPU what one on a GPU does, captures apart: its pool is staged and has a scratch block,
    and decode steps have fixed shapes. On the CPU itself an ordinary one."""
    if device == "cpu":
        return native_runner(served, capabilities, device, memory, cache_dir)
    host = pool_tensor(memory, capabilities.layout, capabilities.num_blocks)
    kv = staged(host, capabilities.layout, torch.device("cpu"))
    return ready_runner(served, kv, host, cache_dir, Eager())


needs_cuda = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
)
STAND_IN: Place = ("cuda", stand_in)
CUDA: Place = ("cuda", native_runner)
PLACES = (pytest.param(STAND_IN, id="stand-in"), pytest.param(CUDA, id="cuda", marks=needs_cuda))
