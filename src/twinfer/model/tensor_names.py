"""Which tensors a checkpoint has, and how they are fused for serving: one table for validation and preparation.

A ``Part`` is one tensor as the decoder wants it: its sources in the checkpoint, stacked along the first dimension.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from twinfer.model.spec import ModelSpec

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One served tensor and the checkpoint's tensors that it is made of, with their shapes, in order."""

    name: str
    sources: tuple[tuple[str, Shape], ...]

    @property
    def shape(self) -> Shape:
        """Of the sources, stacked."""
        rest = self.sources[0][1][1:]
        return (sum(shape[0] for _, shape in self.sources), *rest)


def parts(spec: ModelSpec) -> tuple[Part, ...]:
    """Every tensor that serving needs. A tied output projection is not among them: the embedding is it."""
    hidden, vocab = spec.hidden_size, spec.vocab_size
    found = [
        Part("embedding", (("model.embed_tokens.weight", (vocab, hidden)),)),
        Part("final_norm", (("model.norm.weight", (hidden,)),)),
    ]
    if not spec.tied_embeddings:
        found.append(Part("head", (("lm_head.weight", (vocab, hidden)),)))
    for layer in range(spec.num_layers):
        found.extend(_layer_parts(spec, layer))
    return tuple(found)


def layer_name(layer: int, name: str) -> str:
    """The served tensor ``name`` of a layer."""
    return f"layers.{layer}.{name}"


def scales_name(name: str) -> str:
    """The scales of a packed matrix."""
    return f"{name}.scales"


def may_be_ignored(name: str, spec: ModelSpec) -> bool:
    """Whether a checkpoint may hold this tensor although serving does not need it."""
    return name.endswith(".rotary_emb.inv_freq") or (spec.tied_embeddings and name == "lm_head.weight")


def _layer_parts(spec: ModelSpec, layer: int) -> Iterator[Part]:
    hidden, inner, head = spec.hidden_size, spec.intermediate_size, spec.head_dim
    queries, keys = spec.num_heads * head, spec.num_kv_heads * head

    def part(name: str, *sources: tuple[str, Shape]) -> Part:
        prefix = f"model.layers.{layer}."
        return Part(layer_name(layer, name), tuple((prefix + source, shape) for source, shape in sources))

    rows = {"q": queries, "k": keys, "v": keys}
    yield part("attention_norm", ("input_layernorm.weight", (hidden,)))
    yield part("qkv", *((f"self_attn.{x}_proj.weight", (size, hidden)) for x, size in rows.items()))
    if spec.qkv_bias:
        yield part("qkv_bias", *((f"self_attn.{x}_proj.bias", (size,)) for x, size in rows.items()))
    if spec.qk_norm:
        yield part("q_norm", ("self_attn.q_norm.weight", (head,)))
        yield part("k_norm", ("self_attn.k_norm.weight", (head,)))
    yield part("out", ("self_attn.o_proj.weight", (hidden, queries)))
    if spec.out_bias:
        yield part("out_bias", ("self_attn.o_proj.bias", (hidden,)))
    yield part("mlp_norm", ("post_attention_layernorm.weight", (hidden,)))
    yield part("gate_up", ("mlp.gate_proj.weight", (inner, hidden)), ("mlp.up_proj.weight", (inner, hidden)))
    yield part("down", ("mlp.down_proj.weight", (hidden, inner)))
