"""Which tensors a checkpoint has, and how they are fused for serving: one table for validation and preparation.

What is in which order here is what prepared files hold (``prepared.LAYOUT_VERSION``).
"""

from collections.abc import Iterator

from twinfer.model.expert_names import expert_parts
from twinfer.model.part import Part, Shape
from twinfer.model.spec import ModelSpec


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
        own = (*_attention_parts(spec), *_mlp_parts(spec, layer))
        found.extend(part.within(layer_name(layer, ""), f"model.layers.{layer}.") for part in own)
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


def _attention_parts(spec: ModelSpec) -> Iterator[Part]:
    """Of a layer, named within it."""
    hidden, head = spec.hidden_size, spec.head_dim
    rows = {"q": spec.num_heads * head, "k": spec.num_kv_heads * head, "v": spec.num_kv_heads * head}
    yield _part("attention_norm", ("input_layernorm.weight", (hidden,)))
    if spec.family == "phi3":
        yield _part("qkv", ("self_attn.qkv_proj.weight", (sum(rows.values()), hidden)))
    else:
        yield _part("qkv", *((f"self_attn.{x}_proj.weight", (size, hidden)) for x, size in rows.items()))
    if spec.qkv_bias:
        yield _part("qkv_bias", *((f"self_attn.{x}_proj.bias", (size,)) for x, size in rows.items()))
    if spec.qk_norm:
        yield _part("q_norm", ("self_attn.q_norm.weight", (head,)))
        yield _part("k_norm", ("self_attn.k_norm.weight", (head,)))
    if spec.sinks:
        yield _part("sinks", ("self_attn.sinks", (spec.num_heads,)))
    yield _part("out", ("self_attn.o_proj.weight", (hidden, rows["q"])))
    if spec.out_bias:
        yield _part("out_bias", ("self_attn.o_proj.bias", (hidden,)))


def _mlp_parts(spec: ModelSpec, layer: int) -> Iterator[Part]:
    hidden, inner = spec.hidden_size, spec.intermediate_size
    if spec.post_norms:
        yield _part("attention_post_norm", ("post_attention_layernorm.weight", (hidden,)))
        yield _part("mlp_norm", ("pre_feedforward_layernorm.weight", (hidden,)))
        yield _part("mlp_post_norm", ("post_feedforward_layernorm.weight", (hidden,)))
    else:
        yield _part("mlp_norm", ("post_attention_layernorm.weight", (hidden,)))
    if spec.experts is not None and spec.experts.layers[layer]:
        yield from expert_parts(spec, spec.experts)
        return
    if spec.family == "phi3":
        yield _part("gate_up", ("mlp.gate_up_proj.weight", (2 * inner, hidden)))
    else:
        yield _part("gate_up", *((f"mlp.{name}_proj.weight", (inner, hidden)) for name in ("gate", "up")))
    yield _part("down", ("mlp.down_proj.weight", (hidden, inner)))


def _part(name: str, *sources: tuple[str, Shape]) -> Part:
    return Part(name, sources)
