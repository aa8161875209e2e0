"""How long a step takes on either class of device."""

from twinfer.core.errors import ConfigError
from twinfer.devices.pipeline import pipeline_interval_seconds, pipeline_step_seconds
from twinfer.devices.placement import Placement, Plan
from twinfer.devices.profile import Device, RooflineProfile
from twinfer.devices.roofline import roofline_step_seconds
from twinfer.devices.shape import ModelShape


def step_seconds(profile: Device, shape: ModelShape, placement: Placement, plan: Plan) -> float:
    """Seconds that one step takes, for prompts' chunks and single tokens together.

    Raises:
        ConfigError: tensor parallelism over devices that cut no layers.
    """
    if isinstance(profile, RooflineProfile):
        return roofline_step_seconds(profile, shape, placement, plan)
    check_cut(profile, placement)
    return pipeline_step_seconds(profile, shape, placement, plan)


def interval_seconds(profile: Device, shape: ModelShape, placement: Placement, plan: Plan) -> float:
    """Seconds between the starts of such steps when the stages are kept full with steps of other sequences.

    Raises:
        ConfigError: tensor parallelism over devices that cut no layers.
    """
    if isinstance(profile, RooflineProfile):
        return roofline_step_seconds(profile, shape, placement, plan) / placement.stages
    check_cut(profile, placement)
    return pipeline_interval_seconds(profile, shape, placement, plan)


def check_cut(profile: Device, placement: Placement) -> None:
    """Refuse tensor parallelism over devices that cut no layers.

    Raises:
        ConfigError: they were asked to.
    """
    if not isinstance(profile, RooflineProfile) and placement.tensor_parallel > 1:
        raise ConfigError(f"{profile.title} passes whole layers from device to device; leave tensor parallelism at 1")
