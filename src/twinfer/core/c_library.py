"""Finding the package's parts in C. They are plain shared objects without Python in them, and may be missing."""

import ctypes
from pathlib import Path


def load_c(directory: Path, name: str) -> ctypes.CDLL | None:
    """The library that the package's build put there; ``None`` where it could not be compiled or loaded.

    Calls of its functions release the GIL.
    """
    for path in sorted(directory.glob(f"{name}.*so")):
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            continue
    return None
