"""Fits to steps find what made them."""

import msgspec

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.fit_steps import FITTED, Sample, fit_steps, step_errors
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement
from twinfer.devices.profile import RooflineProfile
from twinfer.devices.roofline import roofline_step_seconds
from twinfer.engine.step_probe import probed_steps

SHAPE = load_shape("qwen2.5-0.5b")
H100 = Catalogue().device("h100")[0]


def test_a_device_is_found_from_its_steps() -> None:
    """Rates and overheads of a device three times as slow, and so its times, from where the fit begins."""
    assert isinstance(H100, RooflineProfile)
    begin = fit_steps(H100, SHAPE, Placement(), [], "nothing")
    slow = {
        name: msgspec.structs.replace(held, value=held.value / 3, low=held.value / 3)
        for name in FITTED[:2]
        if (held := getattr(begin, name))
    }
    true = msgspec.structs.replace(begin, **slow)
    samples = [Sample(step, roofline_step_seconds(true, SHAPE, Placement(), step)) for step in probed_steps()]
    found = fit_steps(H100, SHAPE, Placement(), samples, "here")
    median, largest = step_errors(found, SHAPE, Placement(), samples)
    assert (0.01 > median, 0.05 > largest) == (True, True)
    assert {"here"} == {getattr(found, name).source for name in FITTED}
