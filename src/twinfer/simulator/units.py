"""Numbers of reports as people read them."""

_BYTES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def in_seconds(seconds: float) -> str:
    """A duration, in the unit that suits it."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 or not seconds else f"{seconds * 1e6:.3g} us"


def in_bytes(num_bytes: float) -> str:
    """An amount of KV, in decimal units."""
    for unit, name in _BYTES:
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {name}"
    return f"{num_bytes:.0f} B"


def money(usd: float | None) -> str:
    """US dollars."""
    return "not known" if usd is None else f"${usd:,.2f}"
