"""Profiles of the machine at hand say what was measured and what is a guess."""

from pathlib import Path

from twinfer.devices.catalogue import CATALOGUE, Catalogue
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement, Work
from twinfer.devices.profile import worst_quality
from twinfer.devices.step_time import step_seconds
from twinfer.devices.this import Measurements, measured, this_device, this_links
from twinfer.devices.value import Quality
from twinfer.devices.write import write_entry

FOUND = Measurements(
    machine="a processor, 2 cores",
    when="2026-11-20",
    matmul="BF16 in torch",
    flops=(4e11, 6e11, 5e11),
    read_bytes_per_s=(1e10, 1.2e10, 1.1e10),
    copy_bytes_per_s=(6e9, 7e9, 8e9),
    tcp_bytes_per_s=(2e9, 2.5e9, 1.5e9),
    memory_bytes=16_000_000_000,
)


def test_samples_become_median_and_range() -> None:
    """With the tag that says so."""
    value = measured(FOUND.flops, "here")
    assert (5e11, 4e11, 6e11, Quality.MEASURED) == (value.value, value.low, value.high, value.quality)


def test_rates_are_measured_and_shares_of_them_are_not() -> None:
    """The device as a whole is no better than the guesses in it."""
    device = this_device(FOUND)
    assert Quality.MEASURED == device.memory_bytes_per_s.quality
    assert device.bf16_flops.source == "twinfer devices measure, 2026-11-20, a processor, 2 cores; BF16 in torch"
    assert Quality.ESTIMATE == worst_quality(device)


def test_they_join_the_catalogue(tmp_path: Path) -> None:
    """Written beside the shipped ones, ``this`` is a device like others."""
    for entry in (this_device(FOUND), *this_links(FOUND)):
        write_entry(entry, tmp_path)
    catalogue = Catalogue((CATALOGUE, tmp_path))
    device, number = catalogue.device("this")
    assert (1, 7e9, 2e9) == (
        number,
        catalogue.link("this-shm").line_bytes_per_s.value,
        catalogue.link("this-tcp").line_bytes_per_s.value,
    )
    shape = load_shape("qwen2.5-0.5b")
    seconds = step_seconds(device, shape, Placement(), [Work(1, 100)])
    floor = shape.read_weight_bytes("bf16", 1) / (0.9 * 1.1e10)
    assert floor < seconds < 1.1 * floor
