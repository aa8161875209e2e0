"""A model's weights, as the decoder uses them. All matrices are ``[out, in]``."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from twinfer.model.matrix import Matrix, PlainMatrix
from twinfer.model.spec import ModelSpec
from twinfer.model.tensor_names import layer_name


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


def assemble(tensors: Mapping[str, Tensor], spec: ModelSpec) -> Weights:
    """Put the tensors of ``tensor_names.parts`` in their places."""
    embedding = tensors["embedding"]
    return Weights(
        embedding=embedding,
        layers=tuple(_layer(tensors, layer) for layer in range(spec.num_layers)),
        final_norm=tensors["final_norm"],
        head=PlainMatrix(tensors.get("head", embedding)),
    )


def _layer(tensors: Mapping[str, Tensor], layer: int) -> LayerWeights:
    def required(name: str) -> Tensor:
        return tensors[layer_name(layer, name)]

    def matrix(name: str) -> Matrix:
        return PlainMatrix(required(name))

    def optional(name: str) -> Tensor | None:
        return tensors.get(layer_name(layer, name))

    return LayerWeights(
        attention_norm=required("attention_norm"),
        qkv=matrix("qkv"),
        qkv_bias=optional("qkv_bias"),
        q_norm=optional("q_norm"),
        k_norm=optional("k_norm"),
        out=matrix("out"),
        out_bias=optional("out_bias"),
        mlp_norm=required("mlp_norm"),
        gate_up=matrix("gate_up"),
        down=matrix("down"),
    )
