"""The canonical KV layout, the one that crosses the wire and that our own pools use as they are.

    pool  = [block][layer][K | V][kv_head][token][head_dim]      keys after rope

One block of all layers is one contiguous run of ``block_bytes``; a layer group or a head range of one layer is a
contiguous part of it.

``fp8`` is e4m3 (OCP 8-bit floating point: 4 bits of exponent, bias 7, 3 of mantissa, no infinities, up to 448) with one
scale per layer, K | V, head and token, so that a decode step can write a position without touching its neighbours. A
head's scales follow its elements:

    pool  = [block][layer][K | V][kv_head] { [token][head_dim] elements, [token] scales }

A scale is one byte, E8M0 as in OCP Microscaling: byte ``s`` stands for ``2 ** (s - 127)``, which is the float32 whose
exponent field is ``s``. It is the smallest that brings the largest element to 448 at most. Being a power of two, it
loses nothing: integers up to 15 are exact, and a row read to bf16 or fp32 and stored again has the same values. A
zeroed row reads as zeros; 255 (infinity) marks a row that was not finite.
"""

from typing import Literal

import msgspec

KVDtype = Literal["fp32", "bf16", "fp16", "fp8"]
DTYPE_BYTES: dict[KVDtype, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
SCALE_BYTES: dict[KVDtype, int] = {"fp32": 0, "bf16": 0, "fp16": 0, "fp8": 1}
"""Per layer, K | V, head and token."""


class KVLayout(msgspec.Struct, frozen=True):
    """Shape and element type of a KV pool.

    Virtual KV (of emulated engines) stands for more than its own bytes: ``virtual_token_bytes`` for each position,
    which count wherever bytes are counted or timed. What lies in the pool and crosses the wire is a fingerprint, of one
    layer and one head with one 32-bit element.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    block_tokens: int
    dtype: KVDtype
    virtual_token_bytes: int = 0

    @property
    def block_shape(self) -> tuple[int, int, int, int, int]:
        """``(layer, K | V, kv_head, token, head_dim)``: the elements of one block."""
        return (self.num_layers, 2, self.num_kv_heads, self.block_tokens, self.head_dim)

    @property
    def head_bytes(self) -> int:
        """Bytes of one head's keys or values in one block and layer: its elements and, for fp8, its scales."""
        return self.block_tokens * (self.head_dim * DTYPE_BYTES[self.dtype] + SCALE_BYTES[self.dtype])

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, one contiguous run."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_bytes

    @property
    def is_virtual(self) -> bool:
        """Whether its bytes stand for others."""
        return self.virtual_token_bytes > 0

    @property
    def counted_block_bytes(self) -> int:
        """What a block counts for: its own bytes, or those that they stand for."""
        return self.virtual_token_bytes * self.block_tokens if self.is_virtual else self.block_bytes

    @property
    def token_bytes(self) -> int:
        """What one token position counts for, all layers, K and V."""
        return self.counted_block_bytes // self.block_tokens

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold ``num_tokens`` positions."""
        return -(-num_tokens // self.block_tokens)
