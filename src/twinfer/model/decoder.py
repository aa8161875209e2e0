"""The decoder of all supported families, as one function over weights: tokens in, logits out, K and V into the pool."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from twinfer.model.activation import softcap
from twinfer.model.attention import Scoring, attend
from twinfer.model.batch import Batch
from twinfer.model.layers import feed_forward, norm, norm_if, project_heads
from twinfer.model.paged_kv import PagedKV
from twinfer.model.rope import RopeTable, rotate_
from twinfer.model.spec import ModelSpec, RopeSpec
from twinfer.model.weights import Weights


def forward(
    batch: Batch, weights: Weights, spec: ModelSpec, ropes: Mapping[RopeSpec, RopeTable], kv: PagedKV
) -> Tensor:
    """Compute a batch and return the logits of its sample rows, ``[num_sample_rows, vocab]``."""
    hidden = F.embedding(batch.token_ids, weights.embedding)
    if weights.embedding_scale != 1.0:
        hidden = hidden * weights.embedding_scale
    turns = {rope: table.at(batch.positions) for rope, table in ropes.items()}
    for index, (layer, rope) in enumerate(zip(weights.layers, spec.ropes, strict=True)):
        heads = project_heads(norm(hidden, layer.attention_norm, spec), layer, spec)
        rotate_(heads[:, : spec.num_heads + spec.num_kv_heads], *turns[rope])
        kv.write(index, batch.write_rows, heads[:, spec.num_heads :])
        scoring = Scoring(spec.attention_scale or None, spec.attention_softcap, layer.sinks)
        attended = attend(heads[:, : spec.num_heads], kv, index, batch.views[spec.windows[index]], scoring)
        hidden = hidden + norm_if(layer.out.product(attended, layer.out_bias), layer.attention_post_norm, spec)
        inner = feed_forward(norm(hidden, layer.mlp_norm, spec), layer, spec)
        hidden = hidden + norm_if(inner, layer.mlp_post_norm, spec)
    logits = weights.head.product(norm(hidden[batch.sample_rows], weights.final_norm, spec))
    return softcap(logits, spec.logit_softcap)
