"""The time of a step on a device bound by arithmetic or by memory traffic.

    step = max(arithmetic, traffic) + layers * (overhead + 2 * all-reduce) + (stages - 1) * message

arithmetic = operations / (tensor_parallel * peak * efficiency(tensor_parallel)), experts slower by a factor; attention
at the BF16 peak. traffic = (weights touched + KV attended to) / (tensor_parallel * bandwidth * efficiency). Stages work
one after the other on a step.
"""

from twinfer.devices.placement import Placement, Plan
from twinfer.devices.profile import RooflineProfile
from twinfer.devices.shape import ModelShape, Precision
from twinfer.devices.value import on_curve


def roofline_step_seconds(profile: RooflineProfile, shape: ModelShape, placement: Placement, plan: Plan) -> float:
    """Seconds from a step's start to its end; nothing takes no time."""
    if not plan:
        return 0.0
    bound = max(
        compute_seconds(profile, shape, placement, plan),
        memory_seconds(profile, shape, placement, plan),
    )
    collective = profile.collective_s.value
    per_layer = profile.layer_overhead_s.value + (2 * collective if placement.tensor_parallel > 1 else 0.0)
    return bound + shape.num_layers * per_layer + (placement.stages - 1) * collective


def compute_seconds(profile: RooflineProfile, shape: ModelShape, placement: Placement, plan: Plan) -> float:
    """Time of the arithmetic alone."""
    tokens = sum(work.new_tokens for work in plan)
    attention = sum(shape.attention_flops(work.new_tokens, work.context_tokens) for work in plan)
    experts = shape.expert_flops(tokens)
    others = shape.linear_flops(tokens, draws=len(plan)) - experts
    peak = peak_flops(profile, placement.precision)
    seconds = (others + experts / profile.moe_factor.value) / peak + attention / profile.bf16_flops.value
    degree = placement.tensor_parallel
    return seconds / (degree * on_curve(profile.compute_efficiency, degree))


def memory_seconds(profile: RooflineProfile, shape: ModelShape, placement: Placement, plan: Plan) -> float:
    """Time of the memory traffic alone."""
    weights = shape.read_weight_bytes(placement.precision, sum(work.new_tokens for work in plan))
    degree = placement.tensor_parallel
    kv = sum(shape.kv_bytes(work.end, placement.kv_element_bytes) for work in plan) * shape.kv_copies(degree)
    return (weights + kv) / (degree * profile.memory_bytes_per_s.value * on_curve(profile.memory_efficiency, degree))


def peak_flops(profile: RooflineProfile, precision: Precision) -> float:
    """Dense operations per second at which weights of a precision are multiplied.

    MXFP4 weights meet 8-bit activations, as gpt-oss is served; NVFP4 ones 4-bit activations. What a device cannot do is
    done in BF16.
    """
    wide = profile.bf16_flops
    rates = {
        "bf16": wide,
        "fp8": profile.fp8_flops or wide,
        "mxfp4": profile.fp8_flops or wide,
        "nvfp4": profile.fp4_flops or wide,
    }
    return rates[precision].value
