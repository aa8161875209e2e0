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
class ExpertWeights:
    """The experts of a layer, stacked: ``gate_up [experts, 2 * intermediate, hidden]``, the gate's rows first.

    ``shared_gate [1, hidden]`` weighs the layer's dense network, which then computes every row besides.
    """

    router: Tensor
    router_bias: Tensor | None
    gate_up: Tensor
    gate_up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None
    shared_gate: Tensor | None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer. With H query heads and K key heads of D elements, ``qkv`` is ``[(H + 2K) * D, hidden]``.

    ``gate_up`` is ``[2 * intermediate, hidden]``: the gate's rows, then the other's. Norms over a head are ``[D]``,
    ``sinks [H]``. A layer with experts has a dense network only where they share one.
    """

    attention_norm: Tensor
    qkv: Matrix
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Matrix
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Matrix | None
    down: Matrix | None
    experts: ExpertWeights | None
    sinks: Tensor | None
    attention_post_norm: Tensor | None
    mlp_post_norm: Tensor | None


@dataclass(frozen=True, slots=True)
class Weights:
    """The whole model. ``embedding`` and ``head`` are ``[vocab, hidden]``, and the same memory where they are tied.

    ``embedding_scale`` is rounded to their precision.
    """

    embedding: Tensor
    embedding_scale: float
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor
    head: Matrix

    @property
    def dtype(self) -> torch.dtype:
        """Of all matrices, and so of nearly all arithmetic."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.embedding.device


def assemble(tensors: Mapping[str, Tensor], spec: ModelSpec, kernels: Kernels | None = None) -> Weights:
    """Put the tensors of ``tensor_names.parts`` in their places; ``kernels`` multiply where they can. Norms that scale
    by 1 + weight become plain ones, in fp32."""
    shapes = {part.name: part.shape for part in parts(spec)}

    def matrix_of(name: str) -> Matrix | None:
        return matrix(tensors, name, shapes[name], kernels) if name in tensors else None

    if spec.unit_offset_norms:
        tensors = {name: 1.0 + each.float() if name.endswith("norm") else each for name, each in tensors.items()}
    embedding = tensors["embedding"]
    return Weights(
        embedding=embedding,
        embedding_scale=torch.tensor(spec.embedding_scale, dtype=embedding.dtype).item(),
        layers=tuple(_layer(tensors, matrix_of, layer) for layer in range(spec.num_layers)),
        final_norm=tensors["final_norm"],
        head=matrix(tensors, "head" if "head" in tensors else "embedding", shapes["embedding"], kernels),
    )


def _layer(tensors: Mapping[str, Tensor], matrix_of: Callable[[str], Matrix | None], layer: int) -> LayerWeights:
    def required(name: str) -> Tensor:
        return tensors[layer_name(layer, name)]

    def product(name: str) -> Matrix:
        found = matrix_of(layer_name(layer, name))
        assert found is not None
        return found

    def optional(name: str) -> Tensor | None:
        return tensors.get(layer_name(layer, name))

    experts = (
        ExpertWeights(
            router=required("router"),
            router_bias=optional("router_bias"),
            gate_up=required("experts_gate_up"),
            gate_up_bias=optional("experts_gate_up_bias"),
            down=required("experts_down"),
            down_bias=optional("experts_down_bias"),
            shared_gate=optional("shared_gate"),
        )
        if optional("router") is not None
        else None
    )
    return LayerWeights(
        attention_norm=required("attention_norm"),
        qkv=product("qkv"),
        qkv_bias=optional("qkv_bias"),
        q_norm=optional("q_norm"),
        k_norm=optional("k_norm"),
        out=product("out"),
        out_bias=optional("out_bias"),
        mlp_norm=required("mlp_norm"),
        gate_up=matrix_of(layer_name(layer, "gate_up")),
        down=matrix_of(layer_name(layer, "down")),
        experts=experts,
        sinks=optional("sinks"),
        attention_post_norm=optional("attention_post_norm"),
        mlp_post_norm=optional("mlp_post_norm"),
    )
