"""Fits to steps find what made them."""

import msgspec
import pytest

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.fit_steps import FITTED, Sample, fit_steps, step_errors
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement
from twinfer.devices.profile import RooflineProfile
from twinfer.devices.roofline import roofline_step_seconds
from twinfer.devices.value import Quality, Value
from twinfer.engine.step_probe import probed_steps

SHAPE = load_shape("qwen2.5-0.5b")
H100 = Catalogue().device("h100")[0]
CORE = (6e11, 1e10, 2e9, 1e-4, 8e-3, 4.0)
"""About one core of a server."""


def a_core() -> RooflineProfile:
    """A device with these numbers and no others that matter."""
    assert isinstance(H100, RooflineProfile)
    values = {
        name: Value(value=value, low=value, high=value, quality=Quality.MEASURED, source="made up")
        for name, value in zip(FITTED, CORE, strict=True)
    }
    return msgspec.structs.replace(H100, launch_s=None, step_overhead_s=None, **values)


def test_a_device_is_found_from_its_steps() -> None:
    """The fitted one takes as long for each of them, and its numbers say where they are from."""
    true = a_core()
    assert isinstance(H100, RooflineProfile)
    samples = [Sample(step, roofline_step_seconds(true, SHAPE, Placement(), step)) for step in probed_steps()]
    found = fit_steps(H100, SHAPE, Placement(), samples, "here")
    median, largest = step_errors(found, SHAPE, Placement(), samples)
    assert (0.02 > median, 0.1 > largest) == (True, True)
    assert CORE[4] == pytest.approx(found.sequence_overhead_s.value if found.sequence_overhead_s else 0.0, rel=0.2)
    assert {"here"} == {getattr(found, name).source for name in FITTED}
