"""One function for both classes of devices, which refuses what a class cannot do."""

import pytest

from twinfer.core.errors import ConfigError
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.model_config import load_shape
from twinfer.devices.pipeline import pipeline_interval_seconds, pipeline_step_seconds
from twinfer.devices.placement import Placement, Work
from twinfer.devices.profile import PipelineProfile, RooflineProfile
from twinfer.devices.roofline import roofline_step_seconds
from twinfer.devices.step_time import interval_seconds, step_seconds

CATALOGUE = Catalogue()
SHAPE = load_shape("qwen3-8b")
MIXED = [Work(512, 1024), Work(1, 300), Work(1, 9000)]


def test_each_class_has_its_own_formula() -> None:
    """Chunks of prompts and single tokens in one step."""
    chip, wafer = CATALOGUE.device("h200")[0], CATALOGUE.device("cs3")[0]
    assert isinstance(chip, RooflineProfile)
    assert isinstance(wafer, PipelineProfile)
    two = Placement(2)
    assert roofline_step_seconds(chip, SHAPE, two, MIXED) == step_seconds(chip, SHAPE, two, MIXED)
    assert pipeline_step_seconds(wafer, SHAPE, two, MIXED) == step_seconds(wafer, SHAPE, two, MIXED)
    assert roofline_step_seconds(chip, SHAPE, two, MIXED) / 2 == interval_seconds(chip, SHAPE, two, MIXED)
    assert pipeline_interval_seconds(wafer, SHAPE, two, MIXED) == interval_seconds(wafer, SHAPE, two, MIXED)


def test_wafers_cut_no_layers() -> None:
    """Tensor parallelism over them is refused."""
    wafer = CATALOGUE.device("cs3")[0]
    for function in (step_seconds, interval_seconds):
        with pytest.raises(ConfigError, match=r"Cerebras CS-3 passes whole layers .* leave tensor parallelism at 1"):
            function(wafer, SHAPE, Placement(2, 2), MIXED)


@pytest.mark.parametrize(("devices", "degree"), [(3, 2), (1, 2), (0, 1), (1, 0)])
def test_devices_are_dealt_out_evenly(devices: int, degree: int) -> None:
    """Each stage has as many."""
    with pytest.raises(ConfigError, match=f"{devices} devices cannot be dealt out in groups of {degree}"):
        Placement(devices, degree)


def test_a_wafer_answers_faster_than_a_chip_and_a_chip_reads_prompts_well() -> None:
    """Why the two belong together: tokens an order of magnitude apart, prompts per device far less."""
    shape = load_shape("gpt-oss-120b")
    wafers, chips = CATALOGUE.device("cs3")[0], CATALOGUE.device("trn3")[0]
    on_wafers, on_chips = Placement(4, precision="mxfp4"), Placement(4, 4, "mxfp4")
    token = [Work(1, 8192)]
    assert step_seconds(chips, shape, on_chips, token) > 5 * step_seconds(wafers, shape, on_wafers, token)
