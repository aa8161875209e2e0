"""Which machine this is."""

import platform
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def host_id() -> str:
    """Equal for all processes of one running system, containers included, and for no others."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else platform.node()
