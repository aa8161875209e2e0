"""The time of a step on a device bound by arithmetic or by memory traffic.

    step = max(arithmetic, traffic) + layers' overhead + all-reduces + the step's own overhead

arithmetic = operations / (tensor_parallel * peak * efficiency), with ``efficiency = most * tokens / (tokens + ramp)``,
experts slower by a factor, attention at the BF16 peak. traffic = (weights touched + KV attended to) / (tensor_parallel
* bandwidth * efficiency); where attention is known to read KV more slowly, it has a bandwidth of its own. Layers'
overhead goes with the number of their kernels. Tensor parallelism has two all-reduces per layer: a fixed time each, and
``2 * (degree - 1) / degree`` of the activations over a bandwidth. A step with a prompt in it takes at least the host's
time to launch its kernels, because its shape was not recorded beforehand. Stages work one after the other on a step.
"""

from twinfer.devices.placement import Placement, Plan
from twinfer.devices.profile import RooflineProfile
from twinfer.devices.shape import DENSE_LAYER_KERNELS, ModelShape, Precision
from twinfer.devices.value import Value, on_curve

ACTIVATION_BYTES = 2.0
"""Per element of what all-reduces and stages exchange: 16 bits."""


def roofline_step_seconds(profile: RooflineProfile, shape: ModelShape, placement: Placement, plan: Plan) -> float:
    """Seconds from a step's start to its end; nothing takes no time."""
    if not plan:
        return 0.0
    bound = max(
        compute_seconds(profile, shape, placement, plan),
        memory_seconds(profile, shape, placement, plan),
    )
    beside = overhead_seconds(profile, shape, plan) + collective_seconds(profile, shape, placement, plan)
    return max(bound + beside, launch_seconds(profile, shape, plan))


def compute_seconds(profile: RooflineProfile, shape: ModelShape, placement: Placement, plan: Plan) -> float:
    """Time of the arithmetic alone."""
    tokens = sum(work.new_tokens for work in plan)
    attention = sum(shape.attention_flops(work.new_tokens, work.context_tokens) for work in plan)
    experts = shape.expert_flops(tokens)
    others = shape.linear_flops(tokens, draws=len(plan)) - experts
    rest: Precision = "bf16" if placement.precision == "mxfp4" and shape.is_mixture else placement.precision
    products = others / reached_flops(profile, rest)
    products += experts / (profile.moe_factor.value * reached_flops(profile, placement.precision))
    ramp = 1.0 + _or(profile.ramp_tokens, 0.0) / tokens
    degree = placement.tensor_parallel
    efficiency = degree * on_curve(profile.compute_efficiency, degree)
    return (products * ramp + attention / profile.bf16_flops.value) / efficiency


def memory_seconds(profile: RooflineProfile, shape: ModelShape, placement: Placement, plan: Plan) -> float:
    """Time of the memory traffic alone."""
    weights = shape.read_weight_bytes(placement.precision, sum(work.new_tokens for work in plan))
    degree = placement.tensor_parallel
    kv = sum(shape.kv_bytes(work.end, placement.kv_element_bytes) for work in plan) * shape.kv_copies(degree)
    reached = profile.memory_bytes_per_s.value * on_curve(profile.memory_efficiency, degree)
    return (weights / reached + kv / _or(profile.kv_bytes_per_s, reached)) / degree


def overhead_seconds(profile: RooflineProfile, shape: ModelShape, plan: Plan) -> float:
    """Time that neither arithmetic nor memory explains: of kernels, of the step, and of its sequences."""
    kernels = shape.num_kernels * profile.layer_overhead_s.value / DENSE_LAYER_KERNELS
    return kernels + _or(profile.step_overhead_s, 0.0) + _or(profile.sequence_overhead_s, 0.0) * len(plan)


def collective_seconds(profile: RooflineProfile, shape: ModelShape, placement: Placement, plan: Plan) -> float:
    """Time of all all-reduces, and of messages from stage to stage."""
    messages = (placement.stages - 1) * profile.collective_s.value
    if (degree := placement.tensor_parallel) == 1:
        return messages
    each = profile.collective_s.value
    if profile.collective_bytes_per_s is not None:
        activations = sum(work.new_tokens for work in plan) * shape.hidden_size * ACTIVATION_BYTES
        each += 2.0 * (degree - 1) / degree * activations / profile.collective_bytes_per_s.value
    return 2.0 * shape.num_layers * each + messages


def launch_seconds(profile: RooflineProfile, shape: ModelShape, plan: Plan) -> float:
    """The least time of a step with a prompt in it: a launch for each kernel."""
    prompts = any(work.new_tokens > 1 for work in plan)
    return shape.num_kernels * _or(profile.launch_s, 0.0) if prompts else 0.0


def peak_flops(profile: RooflineProfile, precision: Precision) -> float:
    """Dense operations per second at which weights of a precision are multiplied.

    MXFP4 weights meet 8-bit activations where the device has such instructions, those that have 4-bit ones; elsewhere
    they are widened to 16 bits. NVFP4 ones meet 4-bit activations. What a device cannot do is done in BF16.
    """
    wide = profile.bf16_flops
    rates = {
        "bf16": wide,
        "fp8": profile.fp8_flops or wide,
        "mxfp4": (profile.fp8_flops or wide) if profile.fp4_flops is not None else wide,
        "nvfp4": profile.fp4_flops or wide,
    }
    return rates[precision].value


def reached_flops(profile: RooflineProfile, precision: Precision) -> float:
    """The peak of a precision times the share of the efficiency that products in it reach."""
    factors = {"bf16": None, "fp8": profile.fp8_factor, "mxfp4": profile.fp8_factor, "nvfp4": profile.fp4_factor}
    return peak_flops(profile, precision) * _or(factors[precision], 1.0)


def _or(value: Value | None, otherwise: float) -> float:
    return otherwise if value is None else value.value
