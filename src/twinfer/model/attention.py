"""Causal attention over paged K and V, with grouped heads and an optional sliding window."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from twinfer.model.activation import softcap
from twinfer.model.batch import AttentionView
from twinfer.model.paged_kv import PagedKV

_TILE_QUERIES = 128
"""Queries attended at once. Small tiles skip more of what causality hides, large ones have less overhead."""
_TILE_SCORES = 16 * 1024 * 1024
"""Bound on queries times keys times heads of one tile, for devices that keep the scores in memory."""
_KEPT_SCORES = 2 * 1024 * 1024
"""The same where we keep them ourselves: fp32 scores that stay in a core's cache."""
_LONG_PAST = 2048
"""Positions before a chunk from which it pays on a CPU to attend to them apart: all queries see all of them."""
_MAX_FLASH_HEAD = 256
_FLASH_GENERATION = (8, 0)
"""The oldest GPUs that torch's flash kernels run on: Ampere."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """How scores become weights of attention.

    Attributes:
        scale: scores are multiplied by it; ``None`` for ``head_dim ** -0.5``.
        softcap: they are bent to stay within it; 0 for none.
        sinks: ``[heads]``, a score of each head that takes its share of attention and gives nothing.
    """

    scale: float | None = None
    softcap: float = 0.0
    sinks: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether torch's own attention can do it."""
        return not self.softcap and self.sinks is None


PLAIN = Scoring()


def attend(queries: Tensor, kv: PagedKV, layer: int, view: AttentionView, scoring: Scoring = PLAIN) -> Tensor:
    """Attention of ``queries [T, heads, head_dim]`` to their own sequences: ``[T, heads * head_dim]``.

    The K and V of the queries' own positions must be in the pool already. What the pool stores in another type is
    used in the queries' type.
    """
    result = torch.empty_like(queries, memory_format=torch.contiguous_format)
    for group in view.decodes:
        keys, values = kv.read(layer, group.kv_rows, len(group.rows), queries.dtype)
        result.index_copy_(0, group.rows, decode_attention(queries[group.rows], keys, values, group.mask, scoring))
    for part in view.prefills:
        keys, values = kv.read(layer, part.kv_rows, 1, queries.dtype)
        rows = slice(part.first_row, part.last_row)
        place = (part.start, part.first_key, view.window)
        prefill_attention(queries[rows], keys, values, result[rows], place, scoring)
    return result.flatten(1)


def decode_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scoring: Scoring = PLAIN) -> Tensor:
    """One query per sequence: ``queries [B, H, D]`` on ``keys`` and ``values [B, K, S, D]`` gives ``[B, H, D]``.

    The ``H / K`` heads that share a key head stand where several queries would, so no key is repeated.
    """
    grouped = queries.view(len(queries), keys.shape[1], -1, queries.shape[2])
    if scoring.is_plain:
        attended = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scoring.scale)
    else:
        attended = scored_attention(grouped[:, :, :, None], keys, values, mask[:, :, None], scoring)
    return attended.view_as(queries)


def prefill_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    result: Tensor,
    place: tuple[int, int, int],
    scoring: Scoring = PLAIN,
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
    if start + num_queries <= window:
        window = 0
    least = _least_past(queries)
    if scoring.is_plain and not window and least is not None and start - first_key >= least:
        result.copy_(causal_attention(queries, keys, values, start - first_key, scoring.scale))
        return
    most = _TILE_SCORES if scoring.is_plain else _KEPT_SCORES
    tile = max(16, min(_TILE_QUERIES, most // (num_heads * keys.shape[2])))
    for first in range(0, num_queries, tile):
        last = min(first + tile, num_queries)
        low = max(first_key, start + first - window + 1) if window else first_key
        at_query = torch.arange(start + first, start + last, device=queries.device)[:, None]
        at_key = torch.arange(low, start + last, device=queries.device)
        visible = at_key <= at_query
        if window:
            visible &= at_key > at_query - window
        span = slice(low - first_key, start + last - first_key)
        tile_of = queries[first:last].transpose(0, 1)[None]
        result[first:last] = _tile(tile_of, keys[:, :, span], values[:, :, span], visible, scoring)[0].transpose(0, 1)


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor, past: int, scale: float | None) -> Tensor:
    """Causal attention of ``queries [n, H, D]`` without any mask: ``[n, H, D]``.

    The first ``past`` of ``keys`` and ``values [1, K, S, D]`` are seen by all queries, and the heads that share a key
    head attend to them as one; the n after them are the queries' own. The logarithms of both parts' totals put them
    together. Needs a device that ``_least_past`` knows a number for.
    """
    own = queries.transpose(0, 1)[None]
    present = keys[:, :, past : past + len(queries)], values[:, :, past : past + len(queries)]
    if not past:
        found = F.scaled_dot_product_attention(own, *present, is_causal=True, enable_gqa=True, scale=scale)
        return found[0].transpose(0, 1)
    shared = own.shape[1] // keys.shape[1]
    own_keys, own_values = (each.repeat_interleave(shared, 1) for each in present)
    found, total = _flash(own, own_keys, own_values, True, scale)
    grouped = own.reshape(1, keys.shape[1], -1, own.shape[3])
    earlier, before = _flash(grouped, keys[:, :, :past], values[:, :, :past], False, scale)
    share = torch.sigmoid(before.reshape(total.shape) - total)[..., None]
    return torch.lerp(found.float(), earlier.reshape(found.shape).float(), share)[0].transpose(0, 1)


def _least_past(queries: Tensor) -> int | None:
    """Positions before a chunk from which ``causal_attention`` is the faster way; ``None`` where there is none.

    On a GPU a mask would keep torch from its flash kernels, so it is always the way that they can go.
    """
    if queries.device.type == "cpu":
        return _LONG_PAST
    if queries.device.type != "cuda" or not fits_flash(queries.dtype, queries.shape[-1]):
        return None
    return 0 if torch.cuda.get_device_capability(queries.device) >= _FLASH_GENERATION else None


def fits_flash(dtype: torch.dtype, head_dim: int) -> bool:
    """Whether torch's flash kernels for GPUs take queries of this type and size."""
    return dtype in (torch.bfloat16, torch.float16) and head_dim % 8 == 0 and head_dim <= _MAX_FLASH_HEAD


def _flash(queries: Tensor, keys: Tensor, values: Tensor, causal: bool, scale: float | None) -> tuple[Tensor, Tensor]:
    """Attention of ``[1, H, n, D]`` and the logarithm of each query's total, ``[1, H, n]`` in fp32."""
    ops = torch.ops.aten
    if queries.device.type == "cpu":
        found, total = ops._scaled_dot_product_flash_attention_for_cpu(queries, keys, values, 0.0, causal, scale=scale)
    else:
        found, total, *_ = ops._scaled_dot_product_flash_attention(queries, keys, values, 0.0, causal, scale=scale)
    return found, total


def _tile(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor, scoring: Scoring) -> Tensor:
    """Queries ``[1, H, n, D]`` on keys that ``visible [n, S]`` lets them see: ``[1, H, n, D]``."""
    if scoring.is_plain:
        return F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=visible, enable_gqa=True, scale=scoring.scale
        )
    hidden = torch.zeros(visible.shape, dtype=queries.dtype, device=queries.device).masked_fill_(~visible, -torch.inf)
    grouped = queries.view(1, keys.shape[1], -1, *queries.shape[2:])
    return scored_attention(grouped, keys, values, hidden, scoring).view_as(queries)


def scored_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scoring: Scoring) -> Tensor:
    """Attention with a soft cap or sinks, which torch's own lacks; the weights are computed in fp32.

    Args:
        queries: ``[B, K, G, n, D]``, the G heads that share a key head side by side.
        keys, values: ``[B, K, S, D]``.
        mask: added to the scores ``[B, K, G, n, S]``, broadcast.
        scoring: of the K * G heads.
    """
    scale = queries.shape[-1] ** -0.5 if scoring.scale is None else scoring.scale
    scores = (queries.flatten(2, 3) @ keys.mT).view(*queries.shape[:-1], -1).float().mul_(scale)
    scores = softcap(scores, scoring.softcap).add_(mask)
    top = scores.amax(dim=-1, keepdim=True)
    if scoring.sinks is not None:
        sinks = scoring.sinks.float().view(*scores.shape[1:3], 1, 1)
        top = top.maximum(sinks)
    weights = scores.sub_(top).exp_()
    total = weights.sum(dim=-1, keepdim=True)
    if scoring.sinks is not None:
        total += (sinks - top).exp_()
    attended = (weights.to(values.dtype).flatten(2, 3) @ values).view(queries.shape)
    return (attended / total).to(queries.dtype)
