"""What the catalogue's files may hold: two kinds of devices, machines made of many, and links.

``roofline`` is a chip with memory beside it: a step takes as long as its arithmetic or its memory traffic, whichever is
longer, and an overhead per layer. ``pipeline_sram`` keeps weights and KV on chip: the layers lie along a row of wafers,
and a token takes a time per layer, whatever the bytes. Peak rates are dense ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from twinfer.devices.value import Point, Quality, Value, check_curve, worst


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="class", kw_only=True):
    """What every file has."""

    name: str
    """How it is called in the catalogue: the file's name."""
    title: str
    """How people call it."""
    unit: str
    """What one of it is: a chip, a machine, a link of one instance."""
    doubts: tuple[str, ...] = ()
    """What is not known, or easily misread; one sentence each."""


class RooflineProfile(_Entry, frozen=True, kw_only=True, tag="roofline"):
    """A device bound by arithmetic or by memory traffic."""

    bf16_flops: Value
    """Dense BF16 or FP16 operations per second."""
    fp8_flops: Value | None = None
    """Dense 8-bit floating point operations per second; without it such weights are computed in BF16."""
    fp4_flops: Value | None = None
    """Dense 4-bit floating point operations per second; without it such weights are computed in BF16."""
    memory_bytes: Value
    """Capacity of its memory."""
    memory_bytes_per_s: Value
    """Peak bandwidth of its memory."""
    reserved_bytes: Value
    """Memory that neither weights nor KV can have: runtime, activations, fragmentation."""
    compute_efficiency: tuple[Point, ...]
    """Share of the peak rate that prompts reach (MFU), by degree of tensor parallelism."""
    moe_factor: Value
    """Share of that which the layers of a mixture of experts reach."""
    memory_efficiency: tuple[Point, ...]
    """Share of the peak bandwidth that a step reaches beside its overheads, by degree of tensor parallelism."""
    layer_overhead_s: Value
    """Time of a dense layer that neither arithmetic nor memory explains; layers of more kernels take in proportion."""
    collective_s: Value
    """Time of one small all-reduce; tensor parallelism has two per layer."""
    collective_bytes_per_s: Value | None = None
    """Bandwidth that a large all-reduce reaches, one way; without it the time does not grow with its bytes."""
    fp8_factor: Value | None = None
    """Share of ``compute_efficiency`` that 8-bit weights reach, of their own peak; without it all."""
    fp4_factor: Value | None = None
    """The same for 4-bit weights."""
    ramp_tokens: Value | None = None
    """Tokens of a step at which products reach half of their efficiency; without it one is as efficient as many."""
    launch_s: Value | None = None
    """Time of one kernel's launch by the host. Steps with prompts take no less for all their kernels."""
    step_overhead_s: Value | None = None
    """Time of a step outside the layers: scheduling, sampling, the way to the host and back."""
    kv_bytes_per_s: Value | None = None
    """Bandwidth at which attention reads KV, shares included; without it that of the memory."""
    sequence_overhead_s: Value | None = None
    """The part of it that every sequence in the step adds."""
    power_w: Value | None = None
    price_per_hour: Value | None = None
    """In US dollars."""

    def __post_init__(self) -> None:
        check_curve(self.compute_efficiency, "compute_efficiency")
        check_curve(self.memory_efficiency, "memory_efficiency")


class PipelineProfile(_Entry, frozen=True, kw_only=True, tag="pipeline_sram"):
    """A device that holds weights and KV in SRAM and passes tokens along its layers."""

    bf16_flops: Value
    """Dense BF16 or FP16 operations per second."""
    compute_efficiency: Value
    """Share of the peak rate that many tokens at once reach."""
    memory_bytes: Value
    """Capacity of its SRAM."""
    memory_bytes_per_s: Value
    """Peak bandwidth of its SRAM."""
    reserved_share: Value
    """Share of the SRAM that neither weights nor KV can have: code, activations, buffers."""
    layer_s: Value
    """Time of one token in one layer, crossings between devices not included."""
    hop_s: Value
    """Time of one token's activations from one device to the next."""
    token_s: Value
    """Time per token outside the layers: embedding, sampling, the way to the host and back."""
    micro_batches: Value
    """Independent batches that one device has in flight at a time."""
    ingest_bytes_per_s: Value
    """Bandwidth at which bytes get into one device from outside."""
    power_w: Value | None = None
    price_per_hour: Value | None = None
    """In US dollars."""


class GroupProfile(_Entry, frozen=True, kw_only=True, tag="group"):
    """A machine of many equal devices: figures are those of one, times their number."""

    of: str
    """The device it is made of, as the catalogue calls it."""
    devices: Value
    """How many."""
    power_w: Value | None = None
    price_per_hour: Value | None = None
    """In US dollars."""


class LinkProfile(_Entry, frozen=True, kw_only=True, tag="link"):
    """A way for bytes: ``latency_s + bytes / (efficiency(block) * line_bytes_per_s)``."""

    line_bytes_per_s: Value
    """Line rate, one way."""
    latency_s: Value
    """Fixed time of one transfer."""
    efficiency: tuple[Point, ...]
    """Share of the line rate that is reached, by bytes of one block."""

    def __post_init__(self) -> None:
        check_curve(self.efficiency, "efficiency")


Device = RooflineProfile | PipelineProfile
Entry = RooflineProfile | PipelineProfile | GroupProfile | LinkProfile


@dataclass(frozen=True, slots=True)
class NamedValue:
    """One number of an entry under the name of its field, with its place where the field is a curve."""

    name: str
    value: Value


def values(entry: Entry) -> Iterator[NamedValue]:
    """All numbers of an entry, in the order of its fields."""
    for field in entry.__struct_fields__:
        held = getattr(entry, field)
        if isinstance(held, Value):
            yield NamedValue(field, held)
        elif isinstance(held, tuple):
            for point in held:
                if isinstance(point, Point):
                    yield NamedValue(f"{field} at {point.at:g}", point)


def worst_quality(entry: Entry) -> Quality:
    """The one of an entry's numbers that casts most doubt."""
    return worst(named.value.quality for named in values(entry))
