"""Which tensors a layer of experts has: Mixtral and the Qwens store every expert's matrices apart, gpt-oss all experts'
in one tensor, with gate and other half interleaved."""

from collections.abc import Iterator

from twinfer.model.part import Part, Shape
from twinfer.model.spec import ExpertSpec, ModelSpec

_PACKED_GROUP = 32
"""Elements that share a scale in MXFP4, two of them in a byte."""


def expert_parts(spec: ModelSpec, experts: ExpertSpec) -> Iterator[Part]:
    """Parts of one layer, named within it."""
    if spec.family == "gpt_oss":
        yield from _together(spec, experts)
        return
    hidden, inner, count = spec.hidden_size, experts.intermediate_size, experts.num_experts
    block = "block_sparse_moe." if spec.family == "mixtral" else "mlp."
    gate, up, down = ("w1", "w3", "w2") if spec.family == "mixtral" else ("gate_proj", "up_proj", "down_proj")

    def each(names: tuple[str, ...], shape: Shape) -> tuple[tuple[str, Shape], ...]:
        return tuple((f"{block}experts.{i}.{name}.weight", shape) for i in range(count) for name in names)

    yield Part("router", ((f"{block}gate.weight", (count, hidden)),))
    yield Part("experts_gate_up", each((gate, up), (inner, hidden)), served=(count, 2 * inner, hidden))
    yield Part("experts_down", each((down,), (hidden, inner)), served=(count, hidden, inner))
    if shared := experts.shared_intermediate_size:
        yield Part("shared_gate", (("mlp.shared_expert_gate.weight", (1, hidden)),))
        sources = tuple((f"mlp.shared_expert.{name}_proj.weight", (shared, hidden)) for name in ("gate", "up"))
        yield Part("gate_up", sources)
        yield Part("down", (("mlp.shared_expert.down_proj.weight", (hidden, shared)),))


def _together(spec: ModelSpec, experts: ExpertSpec) -> Iterator[Part]:
    hidden, inner, count = spec.hidden_size, experts.intermediate_size, experts.num_experts
    yield Part("router", (("mlp.router.weight", (count, hidden)),))
    yield Part("router_bias", (("mlp.router.bias", (count,)),))
    for name, rows, columns in (("gate_up", 2 * inner, hidden), ("down", hidden, inner)):
        source, is_gate_up, served = f"mlp.experts.{name}_proj", name == "gate_up", (count, rows, columns)
        if experts.packed:
            groups = (count, rows, columns // _PACKED_GROUP)
            packed = ((f"{source}_blocks", (*groups, _PACKED_GROUP // 2)), (f"{source}_scales", groups))
            yield Part(f"experts_{name}", packed, "mxfp4", is_gate_up, served)
        else:
            yield Part(f"experts_{name}", ((source, (count, columns, rows)),), "transposed", is_gate_up, served)
        yield Part(f"experts_{name}_bias", ((f"{source}_bias", (count, rows)),), interleaved=is_gate_up)
