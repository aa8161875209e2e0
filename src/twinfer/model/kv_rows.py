"""How K and V lie in a pool: as they are, or quantised. One *head run* holds a head's keys or values of one block.

``core.layout`` defines both forms. Rows are counted over the whole pool: a *token row* is one position of a head run,
number ``run * block_tokens + offset``.
"""

from typing import Protocol

import torch
from torch import Tensor

from twinfer.core.layout import KVLayout

_ABOVE_448 = 0x1FFFFF
"""Added to the bits of a float32, carries into its exponent exactly when its mantissa is above that of 448."""


class KVRows(Protocol):
    """The rows of one pool."""

    def put(self, first_run: int, rows: Tensor, values: Tensor) -> None:
        """Store ``values [N, head_dim]`` at the token rows ``rows [N]``, counted from head run ``first_run``."""
        ...

    def take(self, first_run: int, runs: Tensor, dtype: torch.dtype) -> Tensor:
        """Copy out whole head runs, counted from ``first_run``: ``[len(runs), block_tokens * head_dim]``."""
        ...


def stored_shape(layout: KVLayout) -> tuple[int, ...]:
    """Shape of one block in a pool tensor of ``TORCH[layout.dtype]``; quantised head runs are bytes."""
    return (*layout.block_shape[:3], layout.head_bytes) if layout.dtype == "fp8" else layout.block_shape


def kv_rows(pool: Tensor, layout: KVLayout) -> KVRows:
    """The rows of a pool ``[num_blocks, *stored_shape(layout)]``."""
    return QuantisedRows(pool, layout) if layout.dtype == "fp8" else PlainRows(pool, layout)


class PlainRows:
    """Elements of a type that torch computes with; rounded once, on the way in."""

    def __init__(self, pool: Tensor, layout: KVLayout) -> None:
        self._block_tokens = layout.block_tokens
        self._tokens = pool.view(-1, layout.head_dim)
        self._runs = pool.view(-1, layout.block_tokens * layout.head_dim)

    def put(self, first_run: int, rows: Tensor, values: Tensor) -> None:
        """See ``KVRows``."""
        self._tokens[first_run * self._block_tokens :].index_copy_(0, rows, values.to(self._tokens.dtype))

    def take(self, first_run: int, runs: Tensor, dtype: torch.dtype) -> Tensor:
        """See ``KVRows``."""
        return self._runs[first_run:].index_select(0, runs).to(dtype)


class QuantisedRows:
    """e4m3 elements with a power of two per position and head."""

    def __init__(self, pool: Tensor, layout: KVLayout) -> None:
        self._block_tokens, self._head_dim = layout.block_tokens, layout.head_dim
        self._num_elements = layout.block_tokens * layout.head_dim
        self._runs = pool.view(-1, layout.head_bytes)
        runs = len(self._runs), layout.block_tokens, layout.head_dim
        self._elements = self._runs[:, : self._num_elements].view(runs)
        self._scales = self._runs[:, self._num_elements :]
        codes = torch.arange(256, dtype=torch.uint8, device=pool.device)
        self._values = codes.view(torch.float8_e4m3fn).to(torch.float32)

    def put(self, first_run: int, rows: Tensor, values: Tensor) -> None:
        """See ``KVRows``."""
        runs, offsets = rows // self._block_tokens + first_run, rows % self._block_tokens
        self._elements[runs, offsets], self._scales[runs, offsets] = quantise(values.to(torch.float32))

    def take(self, first_run: int, runs: Tensor, dtype: torch.dtype) -> Tensor:
        """See ``KVRows``."""
        found = self._runs[first_run:].index_select(0, runs)
        elements, scales = found[:, : self._num_elements], found[:, self._num_elements :]
        # A look-up is several times faster than torch's own conversion on a CPU.
        values = self._values.index_select(0, elements.flatten().int()).view(*scales.shape, self._head_dim)
        return values.mul_(_powers(scales.int())[..., None]).flatten(1).to(dtype)


def quantise(values: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 ``values [N, head_dim]`` as bytes of e4m3 and their scales ``[N]``, both uint8."""
    largest = values.abs().amax(dim=-1)
    scales = (((largest.view(torch.int32) + _ABOVE_448) >> 23) - 8).clamp_(min=1)
    scales.masked_fill_(~torch.isfinite(largest), 255)
    elements = (values * _powers((254 - scales).clamp_(min=0))[:, None]).to(torch.float8_e4m3fn)
    return elements.view(torch.uint8), scales.to(torch.uint8)


def _powers(exponents: Tensor) -> Tensor:
    """The float32 with this exponent field and no mantissa, of int32."""
    return (exponents << 23).view(torch.float32)
