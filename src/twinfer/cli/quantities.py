"""Numbers of profiles in units that people read; a field's name says which."""

from collections.abc import Sequence

_LARGE = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))
_SMALL = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def in_unit(name: str, value: float) -> str:
    """A number of the field of that name, as ``2.9 TB/s``, ``36 us`` or ``35 %``."""
    field = name.partition(" ")[0]
    if field.endswith("_bytes_per_s"):
        return f"{_scaled(value, _LARGE)}B/s"
    if field.endswith("_bytes"):
        return size(value)
    if field.endswith("_flops"):
        return f"{_scaled(value, _LARGE)}FLOP/s"
    if field.endswith("_s"):
        return _seconds(value)
    if field.endswith(("efficiency", "_share", "_factor")):
        return f"{100 * value:.3g} %"
    if field.endswith("_w"):
        return f"{value / 1e3:.3g} kW" if value >= 1e4 else f"{value:.4g} W"
    return f"${value:.2f}" if field.startswith("price") else f"{value:g}"


def size(num_bytes: float) -> str:
    """Bytes, in decimal units."""
    return f"{_scaled(num_bytes, _LARGE)}B"


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    unit, letter = next((one for one in units if value >= one[0]), units[-1])
    return f"{value / unit:.4g} {letter}"


def _seconds(value: float) -> str:
    unit, letter = next((one for one in _SMALL if value >= one[0]), _SMALL[-1])
    return f"{value / unit:.4g} {letter}" if value else "0 s"
