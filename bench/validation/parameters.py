"""What a fit may change: parameters of the class of devices and of how requests were sent, none of a model."""

from dataclasses import dataclass, fields

import msgspec

from twinfer.devices.profile import RooflineProfile
from twinfer.devices.value import Point, Quality, Value


@dataclass(frozen=True, slots=True)
class Parameters:
    """Of all GPUs together: their peaks and bandwidths are their vendors', the shares that are reached are these.

    Attributes:
        compute_efficiency: share of the peak that products of many tokens reach.
        fp8_factor: share of that which 8-bit weights reach, of their own peak.
        fp4_factor: the same for 4-bit weights.
        moe_factor: share of it that experts reach.
        ramp_tokens: tokens of a step at which half of it is reached.
        memory_efficiency: share of the memory's bandwidth.
        layer_overhead_s: of a dense layer; others in proportion to their kernels.
        collective_s: fixed time of an all-reduce.
        collective_share: of NVLink's bandwidth that large ones reach.
        launch_s: of one kernel in steps with prompts.
        step_overhead_s: of a step.
        sequence_overhead_s: of a sequence in it.
        request_s: of a request before its first step, in InferenceX' runs.
        nvidia_request_s: the same in NVIDIA's runs.
        ahead: prompts that are computed before a request's own are ``ahead / 2 * (running - 1) ** ahead_exponent``.
        ahead_exponent: see ``ahead``.
    """

    compute_efficiency: float = 0.65
    fp8_factor: float = 0.8
    fp4_factor: float = 0.6
    moe_factor: float = 0.5
    ramp_tokens: float = 100.0
    memory_efficiency: float = 0.8
    layer_overhead_s: float = 27e-6
    collective_s: float = 8e-6
    collective_share: float = 0.5
    launch_s: float = 30e-6
    step_overhead_s: float = 200e-6
    sequence_overhead_s: float = 10e-6
    request_s: float = 20e-3
    nvidia_request_s: float = 60e-3
    ahead: float = 0.2
    ahead_exponent: float = 0.9


OF_DEVICES = tuple(field.name for field in fields(Parameters))[:12]
OF_SERVING = tuple(field.name for field in fields(Parameters))[12:]


def with_parameters(profile: RooflineProfile, parameters: Parameters, link_bytes_per_s: float) -> RooflineProfile:
    """A device with these in place of what the catalogue says.

    Args:
        profile: of any roofline device.
        parameters: those of devices are taken.
        link_bytes_per_s: line rate between devices of one host, one way.
    """
    efficiency = {
        name: (Point(at=1.0, value=share, low=share, high=share, quality=Quality.DERIVED, source=_SOURCE),)
        for name in ("compute_efficiency", "memory_efficiency")
        for share in (getattr(parameters, name),)
    }
    singles = [name for name in OF_DEVICES if name not in efficiency and name != "collective_share"]
    values = {name: _value(getattr(parameters, name)) for name in singles}
    values["collective_bytes_per_s"] = _value(parameters.collective_share * link_bytes_per_s)
    return msgspec.structs.replace(profile, **efficiency, **values)


_SOURCE = "a fit"


def _value(number: float) -> Value:
    return Value(value=number, low=number, high=number, quality=Quality.DERIVED, source=_SOURCE)
