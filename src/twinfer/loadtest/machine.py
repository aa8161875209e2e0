"""Where and with what a run was made: enough to repeat it."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from twinfer import __version__

PACKAGES = ("httptools", "numpy", "msgspec")


class Machine(msgspec.Struct, frozen=True):
    """The client's machine and programs.

    Args:
        revision: of the git work tree that the code comes from; "" if it comes from none.
        versions: of packages that matter to the measurement.
    """

    twinfer: str
    revision: str
    python: str
    system: str
    processor: str
    cores: int
    memory_gib: float
    versions: dict[str, str]


def this_machine() -> Machine:
    """The one this runs on."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        twinfer=__version__,
        revision=_revision(Path(__file__).parent),
        python=platform.python_version(),
        system=platform.platform(),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(pages / 2**30, 1),
        versions={name: found for name in PACKAGES if (found := _version(name))},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _revision(directory: Path) -> str:
    command = ["git", "-C", str(directory), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
