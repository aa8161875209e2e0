"""The canonical KV layout, the one that crosses the wire and that our own pools use as they are.

    pool  = [block][layer][K | V][kv_head][token][head_dim]      keys after rope

One block of all layers is one contiguous run of ``block_bytes``; a layer group is a contiguous part of it.
"""

from typing import Literal

import msgspec

KVDtype = Literal["fp32", "bf16", "fp16", "fp8"]
DTYPE_BYTES: dict[KVDtype, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}


class KVLayout(msgspec.Struct, frozen=True):
    """Shape and element type of a KV pool."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    block_tokens: int
    dtype: KVDtype

    @property
    def block_shape(self) -> tuple[int, int, int, int, int]:
        """``(layer, K | V, kv_head, token, head_dim)`` of one block."""
        return (self.num_layers, 2, self.num_kv_heads, self.block_tokens, self.head_dim)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token position, all layers, K and V."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * DTYPE_BYTES[self.dtype]

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, one contiguous run."""
        return self.token_bytes * self.block_tokens

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold ``num_tokens`` positions."""
        return -(-num_tokens // self.block_tokens)
