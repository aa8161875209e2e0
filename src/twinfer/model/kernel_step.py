"""A step of a plain decoder in bf16 on a CPU: all of it in one call of the kernels.

torch would pass over memory several times between two products, and its threads wait for each other after each; where
other processes want the cores too, a step then takes many times as long. Anything else (other devices and types,
stranger models, prompts on a CPU without tiles) goes through ``decoder.forward``, which says what both mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from twinfer.core.layout import KVLayout
from twinfer.core.step import Slice
from twinfer.model.block_tables import BlockTables, padded
from twinfer.model.kernels.library import Batch, Isa, Kernels, StoredLayer, StoredMatrix, StoredModel
from twinfer.model.matrix import KernelMatrix, Matrix, PackedMatrix
from twinfer.model.rope import RopeTable
from twinfer.model.spec import ModelSpec, RopeSpec
from twinfer.model.weights import LayerWeights, Weights

_ORDINARY = {field.name: field.default for field in fields(ModelSpec) if field.default is not MISSING}
"""What kernels/step.c knows nothing of, and so must be as it is in most models."""
_MAX_HEAD_DIM = 256
_LANES = 16
_TILE = 32
_MAX_ROWS = 64
"""Past that many sequences a product is bound by arithmetic, and torch's are as good."""


@dataclass(frozen=True, slots=True)
class KernelStep:
    """A model and its pool, as the kernels name them.

    Attributes:
        kept: the tensors whose addresses ``model`` holds.
    """

    kernels: Kernels
    model: StoredModel
    kept: tuple[object, ...]
    tables: BlockTables

    def takes(self, slices: Sequence[Slice]) -> bool:
        """Whether a step can be computed: without tiles, only one token of each of not too many sequences."""
        if self.kernels.isa == Isa.AMX and self.model.head_dim % _TILE == 0:
            return True
        return len(slices) <= _MAX_ROWS and all(len(part.token_ids) == 1 for part in slices)

    def logits(self, slices: Sequence[Slice]) -> Tensor:
        """Compute a step that ``takes`` accepts: the logits of the slices that draw, ``[n, vocab]`` in fp32."""
        tables = padded(self.tables.update(slices))
        tokens = np.fromiter(chain.from_iterable(part.token_ids for part in slices), np.int64)
        begins = np.cumsum([0, *(len(part.token_ids) for part in slices)])
        starts = np.array([part.start for part in slices], np.int64)
        drawn = begins[1:][[part.sample_index is not None for part in slices]] - 1
        arrays = (each.ctypes.data for each in (tokens, begins, starts, tables))
        batch = Batch(len(tokens), *tables.shape, *arrays, len(drawn), drawn.ctypes.data)
        return self.kernels.step(self.model, batch)


def kernel_step(
    spec: ModelSpec, weights: Weights, ropes: Mapping[RopeSpec, RopeTable], pool: Tensor, layout: KVLayout
) -> KernelStep | None:
    """The kernels' step for a model, or ``None`` where they cannot compute it."""
    kernels = _kernels_of(weights.head)
    sizes = (spec.hidden_size, spec.intermediate_size, spec.head_dim)
    is_known = _is_ordinary(spec) and spec.head_dim <= _MAX_HEAD_DIM and not any(x % _LANES for x in sizes)
    is_bf16 = weights.dtype == torch.bfloat16 and layout.dtype == "bf16" and pool.device.type == "cpu"
    if kernels is None or not is_known or not is_bf16:
        return None
    rope = ropes[spec.rope]
    layers = (StoredLayer * spec.num_layers)(
        *(_layer(layer, window) for layer, window in zip(weights.layers, spec.windows, strict=True))
    )
    model = StoredModel(
        spec.num_layers,
        spec.hidden_size,
        spec.num_heads,
        spec.num_kv_heads,
        spec.head_dim,
        spec.intermediate_size,
        layout.block_tokens,
        spec.rms_norm_eps,
        layers,
        weights.embedding.data_ptr(),
        weights.final_norm.data_ptr(),
        _stored(weights.head),
        rope.cos.data_ptr(),
        rope.sin.data_ptr(),
        pool.data_ptr(),
    )
    return KernelStep(kernels, model, (layers, weights, rope, pool), BlockTables(layout.block_tokens))


def _is_ordinary(spec: ModelSpec) -> bool:
    strange = {name for name, default in _ORDINARY.items() if getattr(spec, name) != default}
    return strange <= {"short_rope"} and spec.rope.fraction == 1


def _layer(layer: LayerWeights, window: int) -> StoredLayer:
    vectors = (layer.attention_norm, layer.qkv_bias, layer.q_norm, layer.k_norm, layer.out_bias, layer.mlp_norm)
    return StoredLayer(
        *(None if vector is None else vector.data_ptr() for vector in vectors),
        *(_stored(matrix) for matrix in (layer.qkv, layer.out, layer.gate_up, layer.down)),
        window,
    )


def _kernels_of(matrix: Matrix) -> Kernels | None:
    return matrix.kernels if isinstance(matrix, KernelMatrix | PackedMatrix) else None


def _stored(matrix: Matrix | None) -> StoredMatrix:
    assert isinstance(matrix, KernelMatrix | PackedMatrix)
    return matrix.stored
