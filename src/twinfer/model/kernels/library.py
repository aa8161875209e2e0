"""The shared object beside this file: found, loaded, and asked what this CPU has.

It is built with the package where there is a C compiler. Its threads are its own (threads.c): OpenMP's wait for each
other at the end of every product, even for one that another process keeps from its core.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor


def _pointers(*names: str) -> tuple[tuple[str, type[ctypes.c_void_p]], ...]:
    return tuple((name, ctypes.c_void_p) for name in names)


def _sizes(*names: str) -> tuple[tuple[str, type[ctypes.c_int64]], ...]:
    return tuple((name, ctypes.c_int64) for name in names)


class Isa(IntEnum):
    """Instruction sets with code of their own; each includes those before it."""

    PORTABLE = 0
    AVX512 = 1
    AMX = 2


class Machine(ctypes.Structure):
    """``machine`` of kernels.h."""

    _fields_ = (("threads", ctypes.c_int32), ("isa", ctypes.c_int32))


class StoredMatrix(ctypes.Structure):
    """``matrix`` of kernels.h."""

    _fields_ = (*_pointers("weights", "scales"), *_sizes("n", "k", "bits"))


class StoredLayer(ctypes.Structure):
    """``layer`` of step.h."""

    _fields_ = (
        *_pointers("attention_norm", "qkv_bias", "q_norm", "k_norm", "out_bias", "mlp_norm"),
        *((name, StoredMatrix) for name in ("qkv", "out", "gate_up", "down")),
        *_sizes("window"),
    )


class StoredModel(ctypes.Structure):
    """``model`` of step.h."""

    _fields_ = (
        *_sizes("num_layers", "hidden", "heads", "kv_heads", "head_dim", "inner", "block_tokens"),
        ("eps", ctypes.c_double),
        ("layers", ctypes.POINTER(StoredLayer)),
        *_pointers("embedding", "final_norm"),
        ("head", StoredMatrix),
        *_pointers("cos", "sin", "pool"),
    )


class Batch(ctypes.Structure):
    """``batch`` of step.h."""

    _fields_ = (
        *_sizes("rows", "num_slices", "table_width"),
        *_pointers("tokens", "begins", "starts", "tables"),
        *_sizes("num_drawn"),
        *_pointers("drawn"),
    )


def stored_matrix(weights: Tensor, scales: Tensor | None, shape: Sequence[int], bits: int) -> StoredMatrix:
    """A matrix ``shape`` in memory that the caller keeps: bf16 rows, or packed weights and scales (``model.packing``).

    Raises:
        ValueError: a tensor is not contiguous or not on the CPU, so its address says nothing.
    """
    for tensor in (weights, scales):
        if tensor is not None and not (tensor.is_contiguous() and tensor.device.type == "cpu"):
            raise ValueError("kernels need contiguous weights in the CPU's memory")
    return StoredMatrix(weights.data_ptr(), None if scales is None else scales.data_ptr(), *shape, bits)


@dataclass(frozen=True, slots=True)
class Kernels:
    """The loaded library with the threads and the instructions it is to use."""

    library: ctypes.CDLL
    machine: Machine

    @property
    def isa(self) -> Isa:
        """The instructions in use."""
        return Isa(self.machine.isa)

    def product(
        self, matrix: StoredMatrix, rows: Tensor, bias: Tensor | None = None, dtype: torch.dtype = torch.bfloat16
    ) -> Tensor:
        """``rows [T, k]`` in bf16 times the transposed matrix, plus ``bias [n]`` in bf16: ``[T, n]``.

        Raises:
            ValueError: ``rows`` or ``bias`` are of another type or shape, or not contiguous.
        """
        if rows.dtype != torch.bfloat16 or rows.shape[1:] != (matrix.k,) or not rows.is_contiguous():
            raise ValueError(f"rows must be bf16, contiguous and [T, {matrix.k}], not {rows.dtype} {list(rows.shape)}")
        if bias is not None and (bias.dtype, bias.shape) != (torch.bfloat16, (matrix.n,)):
            raise ValueError(f"bias must be bf16 and [{matrix.n}], not {bias.dtype} {list(bias.shape)}")
        result = torch.empty((rows.shape[0], matrix.n), dtype=dtype)
        status = self.library.twinfer_product(
            self.machine,
            matrix,
            rows.data_ptr(),
            rows.shape[0],
            None if bias is None else bias.data_ptr(),
            result.data_ptr(),
            dtype == torch.float32,
        )
        if status:
            raise MemoryError("there is no memory for the activations of a step; lower max_step_tokens")
        return result

    def step(self, model: StoredModel, batch: Batch) -> Tensor:
        """One step: logits ``[num_drawn, vocab]`` in fp32. Writes each row's K and V to the pool."""
        logits = torch.empty(batch.num_drawn, model.head.n)
        if self.library.twinfer_step(self.machine, model, batch, logits.data_ptr()):
            raise MemoryError("there is no memory for the activations of a step; lower max_step_tokens")
        return logits

    def read(self, data: Tensor) -> int:
        """Read a tensor's bytes and do next to nothing with them: what a product's speed is held against."""
        return int(self.library.twinfer_read(self.machine, data.data_ptr(), data.nbytes))


def find_kernels(threads: int, isa: Isa | None = None) -> Kernels | None:
    """The kernels with the best instructions of this CPU, or with ``isa`` if it has them; ``None`` if not built.

    Args:
        threads: at most as many work on one product.
        isa: a lesser instruction set, for comparison.
    """
    library = _load()
    if library is None:
        return None
    best = Isa(library.twinfer_isa())
    if isa is not None and isa > best:
        return None
    return Kernels(library, Machine(threads, best if isa is None else isa))


def forbid(logits: Tensor, masks: bytes, rows: Sequence[int]) -> bool:
    """Set what masks do not permit to minus infinity, in place; false if that cannot be done here.

    Args:
        logits: ``[R, vocab]``.
        masks: row after row, a bit for each token, the lowest first, in ``ceil(vocab / 8)`` bytes.
        rows: of the logits that the masks are for; rising.
    """
    library = _load()
    if library is None or not _is_plain(logits):
        return False
    where = None if len(rows) == len(logits) else (ctypes.c_int64 * len(rows))(*rows)
    library.twinfer_forbid(logits.data_ptr(), logits.shape[1], masks, where, len(rows))
    return True


def highest(logits: Tensor) -> list[int] | None:
    """The highest logit of each row of ``[R, vocab]``, lowest id among equals; -1 where not all are finite.

    ``None`` if that cannot be done here.
    """
    library = _load()
    if library is None or not _is_plain(logits):
        return None
    ids = (ctypes.c_int64 * len(logits))()
    library.twinfer_highest(logits.data_ptr(), logits.shape[1], len(logits), ids)
    return list(ids)


def _is_plain(logits: Tensor) -> bool:
    return logits.is_cpu and logits.dtype == torch.float32 and logits.is_contiguous()


@lru_cache(maxsize=1)
def _load() -> ctypes.CDLL | None:
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernels{suffix}")
        if path.is_file():
            return _declared(ctypes.CDLL(str(path)))
    return None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    machine = ctypes.POINTER(Machine)
    library.twinfer_product.argtypes = [
        machine, ctypes.POINTER(StoredMatrix), pointer, size, pointer, pointer, flag,
    ]  # fmt: skip
    library.twinfer_step.argtypes = [machine, ctypes.POINTER(StoredModel), ctypes.POINTER(Batch), pointer]
    library.twinfer_read.argtypes = [machine, pointer, size]
    library.twinfer_read.restype = ctypes.c_uint64
    library.twinfer_forbid.argtypes = [pointer, size, pointer, pointer, size]
    library.twinfer_highest.argtypes = [pointer, size, size, ctypes.POINTER(ctypes.c_int64)]
    return library
