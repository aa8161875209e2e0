"""What Linux tells about processes: who is there, whose sockets, how much memory and time."""

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def marked(mark: str) -> list[int]:
    """Processes with this ``NAME=value`` in the environment they were started with, zombies left out."""
    return [pid for pid in _pids() if mark.encode() in _read(pid, "environ").split(b"\0")]


def module_of(pid: int) -> str:
    """The module a Python process runs; empty for others."""
    words = _read(pid, "cmdline").decode().split("\0")
    return words[words.index("-m") + 1] if "-m" in words else ""


def listener_of(path: str, pids: list[int]) -> int | None:
    """Which of these processes listens on a Unix socket whose path ends like this."""
    lines = (_PROC / "net" / "unix").read_text().splitlines()[1:]
    entries = (line.split() for line in lines)
    sockets = {f"socket:[{entry[6]}]" for entry in entries if len(entry) > 7 and entry[7].endswith(path)}
    return next((pid for pid in pids if sockets & set(open_files(pid))), None)


def open_files(pid: int) -> list[str]:
    """What a process's file descriptors refer to."""
    found = []
    try:
        for link in (_PROC / str(pid) / "fd").iterdir():
            found.append(os.readlink(link))
    except OSError:
        pass  # the process, or the descriptor, went away meanwhile
    return found


def cpu_s(pid: int) -> float:
    """Processor seconds used so far."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def pss_bytes(pid: int) -> int:
    """Proportional set size: private pages, and a fair share of shared ones."""
    for line in _read(pid, "smaps_rollup").decode().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def _read(pid: int, name: str) -> bytes:
    """A file of a process; empty when it is gone or somebody else's."""
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""
