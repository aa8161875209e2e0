"""A recorder that does on a CPU what CUDA graphs do on a GPU, and as strictly.

Each operation that reaches torch is noted with its arguments. A repetition does the same operations on the same tensors
and puts every result where the first one was; no Python of the work runs again. So a shape, a branch or a number taken
from what the inputs held is repeated as it was, and shows as a wrong result, and work that looks at a value is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

REFUSED = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::bincount",
    "aten::lift_fresh",
)
"""Operations with shapes or results that depend on what tensors hold, and tensors made of Python's numbers, which would
have to be copied to the device: a capture fails on them."""


@dataclass(frozen=True)
class Noted:
    """An operation, and the tensors that its results were first in; views of others are not among them."""

    operation: Any
    positional: Sequence[Any]
    named: Mapping[str, Any]
    results: Sequence[Tensor | None]

    def repeat(self) -> None:
        """Do it again."""
        found = _tensors(self.operation(*self.positional, **self.named))
        for first, again in zip(self.results, found, strict=True):
            if first is not None:
                first.copy_(again)


class Tape(TorchDispatchMode):
    """Records what is done while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Noted] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        with self:
            composed = func.decompose(*args, **kwargs)
        if composed is not NotImplemented:
            return composed
        if name in REFUSED or any(each.dtype == torch.bool for each in _indices(name, args)):
            raise RuntimeError(f"{name} makes host and device wait for each other, so it cannot be recorded")
        result = func(*args, **kwargs)
        there = {_memory(each) for each in _tensors([args, list(kwargs.values())])}
        owned = [None if _memory(each) in there else each for each in _tensors(result)]
        self.noted.append(Noted(func, args, kwargs, owned))
        return result


class Tapes:
    """A recorder of tapes; ``made`` counts them."""

    def __init__(self) -> None:
        self.made = 0

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """See ``Recorder``."""
        self.made += 1
        with Tape() as tape:
            result = work()

        def repeat() -> Tensor:
            for noted in tape.noted:
                noted.repeat()
            return result

        return repeat


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for each in value for tensor in _tensors(each)]
    return []


def _indices(name: str, args: Any) -> list[Tensor]:
    """What selects elements by place, or by truth."""
    return _tensors(args[1]) if name in ("aten::index", "aten::index_put", "aten::index_put_") else []


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
