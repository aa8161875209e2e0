"""The decoder of all supported families, as one function over weights: tokens in, logits out, K and V into the pool."""

import torch.nn.functional as F
from torch import Tensor

from twinfer.model.attention import attend
from twinfer.model.batch import Batch
from twinfer.model.layers import mlp, norm, project_heads
from twinfer.model.paged_kv import PagedKV
from twinfer.model.rope import RopeTable, rotate_
from twinfer.model.spec import ModelSpec
from twinfer.model.weights import Weights


def forward(batch: Batch, weights: Weights, spec: ModelSpec, rope: RopeTable, kv: PagedKV) -> Tensor:
    """Compute a batch and return the logits of its sample rows, ``[num_sample_rows, vocab]``."""
    hidden = F.embedding(batch.token_ids, weights.embedding)
    cos, sin = rope.at(batch.positions)
    for index, layer in enumerate(weights.layers):
        heads = project_heads(norm(hidden, layer.attention_norm, spec), layer, spec)
        rotate_(heads[:, : spec.num_heads + spec.num_kv_heads], cos, sin)
        kv.write(index, batch.write_rows, heads[:, spec.num_heads :])
        attended = attend(heads[:, : spec.num_heads], kv, index, batch.views[spec.windows[index]])
        hidden = hidden + layer.out.product(attended, layer.out_bias)
        hidden = hidden + mlp(norm(hidden, layer.mlp_norm, spec), layer)
    return weights.head.product(norm(hidden[batch.sample_rows], weights.final_norm, spec))
