"""A model's weights, as the decoder uses them. All matrices are ``[out, in]``."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from twinfer.model.spec import ModelSpec
from twinfer.model.tensor_names import layer_name


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
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor | None
    down: Tensor | None
    experts: ExpertWeights | None
    sinks: Tensor | None
    attention_post_norm: Tensor | None
    mlp_post_norm: Tensor | None


@dataclass(frozen=True, slots=True)
class Weights:
    """The whole model. ``embedding`` and ``head`` are ``[vocab, hidden]``, and one tensor where they are tied.

    ``embedding_scale`` is rounded to their precision.
    """

    embedding: Tensor
    embedding_scale: float
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor
    head: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Of all matrices, and so of nearly all arithmetic."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.embedding.device


def assemble(tensors: Mapping[str, Tensor], spec: ModelSpec) -> Weights:
    """Put the tensors of ``tensor_names.parts`` in their places. Norms that scale by 1 + weight become plain ones, in
    fp32."""
    if spec.unit_offset_norms:
        tensors = {name: 1.0 + each.float() if name.endswith("norm") else each for name, each in tensors.items()}
    embedding = tensors["embedding"]
    return Weights(
        embedding=embedding,
        embedding_scale=torch.tensor(spec.embedding_scale, dtype=embedding.dtype).item(),
        layers=tuple(_layer(tensors, layer) for layer in range(spec.num_layers)),
        final_norm=tensors["final_norm"],
        head=tensors.get("head", embedding),
    )


def _layer(tensors: Mapping[str, Tensor], layer: int) -> LayerWeights:
    def required(name: str) -> Tensor:
        return tensors[layer_name(layer, name)]

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
        qkv=required("qkv"),
        qkv_bias=optional("qkv_bias"),
        q_norm=optional("q_norm"),
        k_norm=optional("k_norm"),
        out=required("out"),
        out_bias=optional("out_bias"),
        mlp_norm=required("mlp_norm"),
        gate_up=optional("gate_up"),
        down=optional("down"),
        experts=experts,
        sinks=optional("sinks"),
        attention_post_norm=optional("attention_post_norm"),
        mlp_post_norm=optional("mlp_post_norm"),
    )
