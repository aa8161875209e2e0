"""Causal attention over paged K and V, with grouped heads and an optional sliding window."""

import torch
import torch.nn.functional as F
from torch import Tensor

from twinfer.model.batch import AttentionView
from twinfer.model.paged_kv import PagedKV

_TILE_QUERIES = 128
"""Queries attended at once. Small tiles skip more of what causality hides, large ones have less overhead."""
_TILE_SCORES = 16 * 1024 * 1024
"""Bound on queries times keys times heads of one tile, for devices that keep the scores in memory."""


def attend(queries: Tensor, kv: PagedKV, layer: int, view: AttentionView) -> Tensor:
    """Attention of ``queries [T, heads, head_dim]`` to their own sequences: ``[T, heads * head_dim]``.

    The K and V of the queries' own positions must be in the pool already. What the pool stores in another type is
    used in the queries' type.
    """
    result = torch.empty_like(queries, memory_format=torch.contiguous_format)
    for group in view.decodes:
        keys, values = kv.read(layer, group.kv_rows, len(group.rows), queries.dtype)
        result.index_copy_(0, group.rows, decode_attention(queries[group.rows], keys, values, group.mask))
    for part in view.prefills:
        keys, values = kv.read(layer, part.kv_rows, 1, queries.dtype)
        rows = slice(part.first_row, part.last_row)
        prefill_attention(queries[rows], keys, values, result[rows], (part.start, part.first_key, view.window))
    return result.flatten(1)


def decode_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """One query per sequence: ``queries [B, H, D]`` on ``keys`` and ``values [B, K, S, D]`` gives ``[B, H, D]``.

    The ``H / K`` heads that share a key head stand where several queries would, so no key is repeated.
    """
    grouped = queries.view(len(queries), keys.shape[1], -1, queries.shape[2])
    return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask).view_as(queries)


def prefill_attention(
    queries: Tensor, keys: Tensor, values: Tensor, result: Tensor, place: tuple[int, int, int]
) -> None:
    """Many queries of one sequence, into ``result``, in tiles: what no query of a tile may see is not even looked at.

    Args:
        queries: ``[n, H, D]`` of consecutive positions.
        keys, values: ``[1, K, S, D]`` of consecutive positions, at least up to the last query's.
        result: ``[n, H, D]``.
        place: position of the first query, position of the first key, and the window (0 for none).
    """
    start, first_key, window = place
    num_queries, num_heads, _ = queries.shape
    tile = max(16, min(_TILE_QUERIES, _TILE_SCORES // (num_heads * keys.shape[2])))
    for first in range(0, num_queries, tile):
        last = min(first + tile, num_queries)
        low = max(first_key, start + first - window + 1) if window else first_key
        at_query = torch.arange(start + first, start + last, device=queries.device)[:, None]
        at_key = torch.arange(low, start + last, device=queries.device)
        visible = at_key <= at_query
        if window:
            visible &= at_key > at_query - window
        span = slice(low - first_key, start + last - first_key)
        attended = F.scaled_dot_product_attention(
            queries[first:last].transpose(0, 1)[None],
            keys[:, :, span],
            values[:, :, span],
            attn_mask=visible,
            enable_gqa=True,
        )
        result[first:last] = attended[0].transpose(0, 1)
