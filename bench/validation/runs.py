"""Runs as columns of numbers, and the time of their steps for any parameters: `roofline.py` for all runs at once."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.validation.parameters import Parameters
from bench.validation.points import Point
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.placement import Plan, Work
from twinfer.devices.roofline import ACTIVATION_BYTES, peak_flops
from twinfer.devices.shape import DENSE_LAYER_KERNELS, Precision

Column = NDArray[np.float64]
LINKS = {"h100": "nvlink4", "h200": "nvlink4", "b200": "nvlink5", "b300": "nvlink5", "gb200": "nvlink5"}


@dataclass(frozen=True, slots=True)
class Steps:
    """One step of every run, counted: operations, bytes, tokens and sequences, on one of its devices."""

    rest_flops: Column
    expert_flops: Column
    attention_flops: Column
    weight_bytes: Column
    kv_bytes: Column
    tokens: Column
    sequences: Column
    prompts: Column


@dataclass(frozen=True, slots=True)
class Runs:
    """All runs, by columns.

    Attributes:
        decode: a step of all requests that run, one token each.
        mixed: the same step with one of them computing its prompt.
        rest_bits: of weights outside the experts: 16, 8 or 4.
        expert_bits: of the experts.
    """

    decode: Steps
    mixed: Steps
    bf16_flops: Column
    rest_flops_per_s: Column
    expert_flops_per_s: Column
    rest_bits: Column
    expert_bits: Column
    memory_bytes_per_s: Column
    link_bytes_per_s: Column
    degree: Column
    layers: Column
    kernels: Column
    hidden: Column
    running: Column
    answer: Column
    dated: Column
    waves: Column
    first_token_s: Column
    token_s: Column
    below_saturation: Column

    def where(self, chosen: NDArray[np.bool_]) -> "Runs":
        """Some of the runs."""
        return Runs(**{field.name: _chosen(getattr(self, field.name), chosen) for field in fields(self)})


def decode_plan(point: Point) -> Plan:
    """A token for each request, at the context of the middle of its answer."""
    return [Work(1, point.prompt + point.answer // 2)] * point.running


def mixed_plan(point: Point) -> Plan:
    """The same with one prompt in place of a token."""
    return [Work(point.prompt, 0), *decode_plan(point)[1:]]


def runs_of(points: Sequence[Point], catalogue: Catalogue) -> Runs:
    """Columns for these points."""

    def column(values: Any) -> Column:
        return np.array(list(values), dtype=float)

    rest = [_rest_precision(point) for point in points]
    return Runs(
        decode=_steps(points, [decode_plan(point) for point in points]),
        mixed=_steps(points, [mixed_plan(point) for point in points]),
        bf16_flops=column(point.device.bf16_flops.value for point in points),
        rest_flops_per_s=column(peak_flops(p.device, precision) for p, precision in zip(points, rest, strict=True)),
        expert_flops_per_s=column(peak_flops(point.device, point.placement.precision) for point in points),
        rest_bits=column(_BITS[precision] for precision in rest),
        expert_bits=column(_BITS[point.placement.precision] for point in points),
        memory_bytes_per_s=column(point.device.memory_bytes_per_s.value for point in points),
        link_bytes_per_s=column(catalogue.link(LINKS[p.device.name]).line_bytes_per_s.value for p in points),
        degree=column(point.placement.tensor_parallel for point in points),
        layers=column(point.shape.num_layers for point in points),
        kernels=column(point.shape.num_kernels for point in points),
        hidden=column(point.shape.hidden_size for point in points),
        running=column(point.running for point in points),
        answer=column(point.answer for point in points),
        dated=column(point.dated for point in points),
        waves=column(point.engine == "sglang" for point in points),
        first_token_s=column(point.first_token_s for point in points),
        token_s=column(point.token_s for point in points),
        below_saturation=column(point.below_saturation for point in points),
    )


def step_seconds(parameters: Parameters, runs: Runs, steps: Steps, decoding: Column) -> Column:
    """Seconds of these steps.

    Args:
        parameters: those of devices are used.
        runs: the runs.
        steps: one step of each.
        decoding: share of the requests that are past their first token, and so of KV and sequences.
    """
    p = parameters
    ramp = 1.0 + p.ramp_tokens / steps.tokens
    rest = steps.rest_flops / (runs.rest_flops_per_s * _factor(p, runs.rest_bits))
    experts = steps.expert_flops / (runs.expert_flops_per_s * _factor(p, runs.expert_bits) * p.moe_factor)
    arithmetic = ((rest + experts) * ramp + steps.attention_flops / runs.bf16_flops) / p.compute_efficiency
    traffic = (steps.weight_bytes + steps.kv_bytes * decoding) / (runs.memory_bytes_per_s * p.memory_efficiency)
    kernels = runs.kernels * p.layer_overhead_s / DENSE_LAYER_KERNELS
    overhead = kernels + p.step_overhead_s + p.sequence_overhead_s * steps.sequences * decoding
    activations = steps.tokens * runs.hidden * ACTIVATION_BYTES
    reduced = 2.0 * (runs.degree - 1.0) / runs.degree * activations / (runs.link_bytes_per_s * p.collective_share)
    reduces = np.where(runs.degree > 1, 2.0 * runs.layers * (p.collective_s + reduced), 0.0)
    seconds: Column = np.maximum(arithmetic, traffic) + overhead + reduces
    return np.maximum(seconds, steps.prompts * runs.kernels * p.launch_s)


_BITS: dict[Precision, int] = {"bf16": 16, "fp8": 8, "mxfp4": 8, "nvfp4": 4}


def _factor(parameters: Parameters, bits: Column) -> Column:
    wide = np.where(bits == 8, parameters.fp8_factor, 1.0)
    return np.where(bits == 4, parameters.fp4_factor, wide)


def _rest_precision(point: Point) -> Precision:
    mixed = point.placement.precision == "mxfp4" and point.shape.is_mixture
    return "bf16" if mixed else point.placement.precision


def _steps(points: Sequence[Point], plans: Sequence[Plan]) -> Steps:
    rows = [_counts(point, plan) for point, plan in zip(points, plans, strict=True)]
    return Steps(*np.array(rows, dtype=float).T) if rows else Steps(*[np.zeros(0)] * 8)


def _counts(point: Point, plan: Plan) -> tuple[float, ...]:
    shape, degree = point.shape, point.placement.tensor_parallel
    tokens = sum(work.new_tokens for work in plan)
    kinds = [(plan[0], 1), (plan[-1], len(plan) - 1)]
    experts = shape.expert_flops(tokens)
    attention = sum(n * shape.attention_flops(work.new_tokens, work.context_tokens) for work, n in kinds)
    kv = sum(n * shape.kv_bytes(work.end, point.placement.kv_element_bytes) for work, n in kinds)
    return (
        (shape.linear_flops(tokens, draws=len(plan)) - experts) / degree,
        experts / degree,
        attention / degree,
        shape.read_weight_bytes(point.placement.precision, tokens) / degree,
        kv * shape.kv_copies(degree) / degree,
        tokens,
        len(plan),
        float(any(work.new_tokens > 1 for work, _ in kinds)),
    )


def _chosen(held: Any, chosen: NDArray[np.bool_]) -> Any:
    if isinstance(held, Steps):
        return Steps(*(getattr(held, field.name)[chosen] for field in fields(held)))
    return held[chosen]
