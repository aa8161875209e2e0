"""A model's weights, as the decoder uses them. All matrices are ``[out, in]``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from twinfer.model.kernels.library import Kernels
from twinfer.model.matrix import Matrix, matrix
from twinfer.model.spec import ModelSpec
from twinfer.model.tensor_names import layer_name, parts


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer. With H query heads and K key heads of D elements, ``qkv`` is ``[(H + 2K) * D, hidden]``.

    ``gate_up`` is ``[2 * intermediate, hidden]``: the gate's rows, then the other's. Norms over a head are ``[D]``.
    """

    attention_norm: Tensor
    qkv: Matrix
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Matrix
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Matrix
    down: Matrix


@dataclass(frozen=True, slots=True)
class Weights:
    """The whole model. ``embedding`` and ``head`` are ``[vocab, hidden]``, and the same memory where they are tied."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor
    head: Matrix

    @property
    def dtype(self) -> torch.dtype:
        """Of all weights, and so of all arithmetic."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.embedding.device


def assemble(tensors: Mapping[str, Tensor], spec: ModelSpec, kernels: Kernels | None = None) -> Weights:
    """Put the tensors of ``tensor_names.parts`` in their places; ``kernels`` multiply where they can."""
    shapes = {part.name: part.shape for part in parts(spec)}

    def matrix_of(name: str) -> Matrix:
        return matrix(tensors, name, shapes[name], kernels)

    embedding = tensors["embedding"]
    return Weights(
        embedding=embedding,
        layers=tuple(_layer(tensors, matrix_of, layer) for layer in range(spec.num_layers)),
        final_norm=tensors["final_norm"],
        head=matrix(tensors, "head" if "head" in tensors else "embedding", shapes["embedding"], kernels),
    )


def _layer(tensors: Mapping[str, Tensor], matrix_of: Callable[[str], Matrix], layer: int) -> LayerWeights:
    def required(name: str) -> Tensor:
        return tensors[layer_name(layer, name)]

    def product(name: str) -> Matrix:
        return matrix_of(layer_name(layer, name))

    def optional(name: str) -> Tensor | None:
        return tensors.get(layer_name(layer, name))

    return LayerWeights(
        attention_norm=required("attention_norm"),
        qkv=product("qkv"),
        qkv_bias=optional("qkv_bias"),
        q_norm=optional("q_norm"),
        k_norm=optional("k_norm"),
        out=product("out"),
        out_bias=optional("out_bias"),
        mlp_norm=required("mlp_norm"),
        gate_up=product("gate_up"),
        down=product("down"),
    )
