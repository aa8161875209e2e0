"""Numbers come in the units that people use for them."""

import pytest

from twinfer.cli.quantities import in_unit, size


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("memory_bytes_per_s", 2.9e12, "2.9 TB/s"),
        ("ingest_bytes_per_s", 21e15, "21 PB/s"),
        ("memory_bytes", 44e9, "44 GB"),
        ("bf16_flops", 667e12, "667 TFLOP/s"),
        ("layer_s", 8e-6, "8 us"),
        ("latency_s", 1.9e-3, "1.9 ms"),
        ("token_s", 0.0, "0 s"),
        ("compute_efficiency at 8", 0.35, "35 %"),
        ("reserved_share", 0.15, "15 %"),
        ("moe_factor", 1.0, "100 %"),
        ("power_w", 700.0, "700 W"),
        ("power_w", 23000.0, "23 kW"),
        ("price_per_hour", 41.96, "$41.96"),
        ("devices", 144.0, "144"),
    ],
)
def test_units_follow_the_name(name: str, value: float, expected: str) -> None:
    """The field's name says what its number is."""
    assert expected == in_unit(name, value)


def test_small_sizes() -> None:
    """Less than a megabyte is a part of one."""
    assert ["0.0736 MB", "306.7 MB", "1.5 TB"] == [size(number) for number in (73600, 306.7e6, 1.5e12)]
