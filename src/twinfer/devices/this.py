"""Profiles of the machine at hand, made of what was measured: the device ``this``, the links beside it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from twinfer.devices.profile import LinkProfile, RooflineProfile
from twinfer.devices.value import Point, Quality, Value


@dataclass(frozen=True, slots=True)
class Measurements:
    """Samples of one run on one machine.

    Attributes:
        machine: its processor and how many cores were used.
        when: the date.
        matmul: what multiplied matrices.
        flops: operations per second of it.
        read_bytes_per_s: all cores reading memory.
        copy_bytes_per_s: one core copying into shared memory.
        tcp_bytes_per_s: one connection on loopback.
        memory_bytes: what the machine, or this process's control group, may use.
    """

    machine: str
    when: str
    matmul: str
    flops: Sequence[float]
    read_bytes_per_s: Sequence[float]
    copy_bytes_per_s: Sequence[float]
    tcp_bytes_per_s: Sequence[float]
    memory_bytes: int

    @property
    def origin(self) -> str:
        """Where the numbers are from, as a source says it."""
        return f"twinfer devices measure, {self.when}, {self.machine}"


def measured(samples: Sequence[float], source: str) -> Value:
    """The median of samples, and their range."""
    return Value(
        value=statistics.median(samples),
        low=min(samples),
        high=max(samples),
        quality=Quality.MEASURED,
        source=source,
    )


def this_device(found: Measurements) -> RooflineProfile:
    """The machine as a device; what it reaches of the measured rates in a model is an estimate."""
    return RooflineProfile(
        name="this",
        title=found.machine,
        unit="this machine",
        doubts=("Rates were measured without a model; the shares of them that a model reaches are guesses.",),
        bf16_flops=measured(found.flops, f"{found.origin}; {found.matmul}"),
        memory_bytes=measured([found.memory_bytes], f"{found.origin}; of the machine or the control group"),
        memory_bytes_per_s=measured(found.read_bytes_per_s, f"{found.origin}; all cores read"),
        reserved_bytes=_guess(2e9, 0.5e9, 8e9, "operating system and runtime"),
        compute_efficiency=(_share(0.8, 0.5, 1.0, "of the measured rate: other operations stand between products"),),
        moe_factor=_guess(0.5, 0.2, 1.0, "not measured"),
        memory_efficiency=(_share(0.9, 0.6, 1.0, "of the measured rate"),),
        layer_overhead_s=_guess(50e-6, 10e-6, 200e-6, "a dozen operations of torch"),
        collective_s=_guess(20e-6, 5e-6, 100e-6, "through shared memory"),
    )


def this_links(found: Measurements) -> tuple[LinkProfile, LinkProfile]:
    """Shared memory and loopback of the machine, without the digests that a handoff makes."""
    note = "Bytes alone were moved: a handoff makes digests besides."
    copy = measured(found.copy_bytes_per_s, f"{found.origin}; one core copies")
    tcp = measured(found.tcp_bytes_per_s, f"{found.origin}; 2 MiB a send")
    whole = (_share(1.0, 0.6, 1.0, "the measured rate is what was reached", at=2**21),)
    trip = _guess(30e-6, 10e-6, 100e-6, "a message over a socket and a wakeup")
    return (
        LinkProfile(
            name="this-shm",
            title="Shared memory of this machine",
            unit="one copying thread",
            doubts=(note,),
            line_bytes_per_s=copy,
            latency_s=trip,
            efficiency=whole,
        ),
        LinkProfile(
            name="this-tcp",
            title="TCP on this machine's loopback",
            unit="one connection",
            doubts=(note,),
            line_bytes_per_s=tcp,
            latency_s=trip,
            efficiency=whole,
        ),
    )


def _guess(value: float, low: float, high: float, why: str) -> Value:
    return Value(value=value, low=low, high=high, quality=Quality.ESTIMATE, source=f"a guess: {why}")


def _share(value: float, low: float, high: float, why: str, at: float = 1.0) -> Point:
    return Point(at=at, value=value, low=low, high=high, quality=Quality.ESTIMATE, source=f"a guess: {why}")
