"""The time of a step on wafers that hold weights and KV in SRAM and pass tokens along their layers.

    step = max(layers * layer_s, projections) + attention + crossings * hop_s + token_s

A token takes a time per layer whatever the bytes: the bandwidth of the SRAM would allow a hundred to a thousand times
the speeds that are published. The model lies on the wafers one part after the other, a crossing between two of them.
Tokens of one step work on different wafers at the same time, so that arithmetic counts over as many wafers as there are
tokens. Steps of other sequences may follow before this one is through: see ``pipeline_interval_seconds``.
"""

from twinfer.devices.placement import Placement, Plan
from twinfer.devices.profile import PipelineProfile
from twinfer.devices.shape import ModelShape


def pipeline_step_seconds(profile: PipelineProfile, shape: ModelShape, placement: Placement, plan: Plan) -> float:
    """Seconds from a step's start to its end; nothing takes no time."""
    if not plan:
        return 0.0
    busy = min(placement.devices, sum(work.new_tokens for work in plan))
    layers = max(shape.num_layers * profile.layer_s.value, projection_seconds(profile, shape, plan) / busy)
    return layers + attention_seconds(profile, shape, placement, plan) / busy + _beside(profile, placement)


def pipeline_interval_seconds(profile: PipelineProfile, shape: ModelShape, placement: Placement, plan: Plan) -> float:
    """Seconds after which a step of the same kind, of other sequences, may follow: as many as wafers have in flight."""
    if not plan:
        return 0.0
    in_flight = placement.devices * profile.micro_batches.value
    work = projection_seconds(profile, shape, plan) + attention_seconds(profile, shape, placement, plan)
    return max(pipeline_step_seconds(profile, shape, placement, plan) / in_flight, work / placement.devices)


def latency_seconds(profile: PipelineProfile, num_layers: int, devices: int) -> float:
    """Time of one token through all layers, from their number and that of the wafers alone."""
    return num_layers * profile.layer_s.value + _beside(profile, Placement(devices))


def projection_seconds(profile: PipelineProfile, shape: ModelShape, plan: Plan) -> float:
    """Time of all matrix products on one wafer."""
    flops = shape.linear_flops(sum(work.new_tokens for work in plan), draws=len(plan))
    return flops / (profile.bf16_flops.value * profile.compute_efficiency.value)


def attention_seconds(profile: PipelineProfile, shape: ModelShape, placement: Placement, plan: Plan) -> float:
    """Time of scores and weighted values on one wafer, or of reading the KV where that is longer."""
    flops = sum(shape.attention_flops(work.new_tokens, work.context_tokens) for work in plan)
    kv = sum(shape.kv_bytes(work.end, placement.kv_element_bytes) for work in plan)
    return max(
        flops / (profile.bf16_flops.value * profile.compute_efficiency.value), kv / profile.memory_bytes_per_s.value
    )


def _beside(profile: PipelineProfile, placement: Placement) -> float:
    """Crossings between wafers, and what lies outside the layers."""
    return (placement.devices - 1) * profile.hop_s.value + profile.token_s.value
