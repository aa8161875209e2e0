"""``twinfer doctor``: what this machine can run, what it cannot, and what to do about it.

Every check looks at one thing and returns one row. Whether ``twinfer serve`` would work is decided by those rows alone
that it needs; the others say what else could be had.
"""

import argparse
import contextlib
import ctypes
import importlib
import importlib.util
import mmap
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from twinfer.cli.configuration import CACHE_VARIABLE, cache_dir
from twinfer.core.config import Config
from twinfer.core.errors import ConfigError, TwinferError
from twinfer.core.ids import HandoffId
from twinfer.gateway.serve import bind
from twinfer.kv.memory import PoolMemory
from twinfer.kv.runs import CopyRuns, fast_copy_runs
from twinfer.model.checkpoint import locate, read_checkpoint
from twinfer.transport.base import KVSink, KVSource, PeerT
from twinfer.transport.digest import digest_blocks
from twinfer.transport.nixl import NixlSink, NixlSource, nixl_available, rdma_devices
from twinfer.transport.shm import ShmSink, ShmSource
from twinfer.transport.tcp import TcpSink, TcpSource

WORKER_BYTES = 512 << 20
"""What a worker of the demo model takes besides its KV pool, torch being most of it."""
MIN_CACHE_BYTES = 1 << 30
_MADV_POPULATE_WRITE = 23
_PULL_S = 5.0
_BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")
"""``bf16`` is what ARM's ``/proc/cpuinfo`` calls it."""
_SHOWN_FLAGS = ("amx_tile", "amx_int8", *_BF16_FLAGS, "avx512f", "avx2", "sve", "i8mm")


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    NO = "no"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Row:
    """One finding.

    Attributes:
        text: what was found, and where something is to be done, what.
        needed: with status ``no``, ``twinfer serve`` does not start.
    """

    name: str
    status: Status
    text: str
    needed: bool = False


def run(arguments: argparse.Namespace) -> int:
    """Look at everything and print a table; 0 when ``twinfer serve`` would work, else 1."""
    console, rows = Console(highlight=False, markup=False), list[Row]()
    with console.status("looking at this machine"):
        for check in checks(Config()):
            rows.append(check())
    console.print(_table(rows))
    missing = [row.name for row in rows if row.needed and row.status is Status.NO]
    if missing:
        console.print(f"\n'twinfer serve' cannot work here yet: see {', '.join(missing)}.", style="red")
        return 1
    console.print("\n'twinfer serve' works here.", style="green")
    return 0


def checks(config: Config) -> list[Callable[[], Row]]:
    """All checks, in the order of the table."""
    return [
        python,
        system,
        lambda: cores(_affinity(), _cpu_quota()),
        lambda: memory(_available_bytes(), config),
        lambda: cpu_features(_cpu_flags()),
        lambda: torch_library(_imported("torch")),
        lambda: accelerators(_imported("torch")),
        lambda: native_engine(_imported("twinfer.engine.native")),
        lambda: kernels(_imported("twinfer.model.kernels.library")),
        lambda: c_parts(fast_copy_runs()),
        lambda: transport(
            "shared memory", "between workers of this machine: one copy, none by the source", ShmSource(), ShmSink()
        ),
        populate,
        lambda: transport("TCP", "on loopback; between machines with certificates", TcpSource(), TcpSink()),
        nixl,
        foreign,
        lambda: port(config.gateway.host, config.gateway.port),
        lambda: cache(Path(cache_dir(config))),
        demo_model,
    ]


def python() -> Row:
    """The interpreter; an older one could not have come this far."""
    return Row("Python", Status.OK, f"{platform.python_version()} at {sys.executable}")


def system() -> Row:
    """Workers are pinned to cores and share sealed memory files, which only Linux has."""
    name = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if sys.platform == "linux":
        return Row("system", Status.OK, name, needed=True)
    return Row("system", Status.NO, f"{name}; run Twinfer on Linux, in a container for example", needed=True)


def cores(num_allowed: int, quota: float | None) -> Row:
    """Cores this process may use, and the share of them that its control group grants."""
    text = f"{num_allowed} of {os.cpu_count()} usable"
    if quota is not None and quota < num_allowed:
        advice = "give this container as many cores as its quota, or its threads wait for each other"
        return Row("cores", Status.NOTE, f"{text}, with a quota of {quota:g}; {advice}")
    if num_allowed == 1:
        return Row("cores", Status.NOTE, f"{text}; prefill and decode will share it")
    return Row("cores", Status.OK, text)


def memory(available: int | None, config: Config) -> Row:
    """Room for the default deployment: one KV pool per worker, and torch in each."""
    wanted = sum(pool.workers * ((pool.kv_mib << 20) + WORKER_BYTES) for pool in config.pool)
    if available is None:
        return Row("memory", Status.NOTE, f"unknown; the default deployment takes about {_gib(wanted)}")
    text = f"{_gib(available)} available, about {_gib(wanted)} taken by the default deployment"
    if available < wanted:
        return Row("memory", Status.NOTE, f"{text}; lower kv_mib of its pools, as in --set pool.decode.kv_mib=128")
    return Row("memory", Status.OK, text)


def cpu_features(flags: Iterable[str] | None) -> Row:
    """Instructions that decide how fast torch computes on this CPU."""
    if flags is None:
        return Row("CPU features", Status.NOTE, "unknown here")
    present = set(flags)
    text = ", ".join(flag for flag in _SHOWN_FLAGS if flag in present) or "none of those that matter"
    if not present.intersection(_BF16_FLAGS):
        return Row("CPU features", Status.NOTE, f'{text}; no bf16: serve bf16 models with weights = "fp32"')
    return Row("CPU features", Status.OK, text)


def torch_library(torch: Any) -> Row:
    """Torch's version, or why it cannot be had."""
    if isinstance(torch, Exception):
        return Row("torch", Status.NO, f"{torch}; pip install 'twinfer[native]', or 'make setup'")
    return Row("torch", Status.OK, f"{torch.__version__}, {torch.get_num_threads()} threads by default")


def accelerators(torch: Any) -> Row:
    """Devices beside the CPU that this torch can use."""
    if isinstance(torch, Exception):
        return Row("accelerators", Status.NO, "unknown without torch")
    devices = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    if devices:
        advice = "name one as device of a pool; GPUs are untested in this version"
        return Row("accelerators", Status.NOTE, f"{', '.join(devices)}; {advice}")
    if torch.version.cuda is None and Path("/proc/driver/nvidia").exists():
        return Row("accelerators", Status.NO, "this torch is built for CPUs only: run make clean setup with the driver")
    return Row("accelerators", Status.NO, "no CUDA device and no MPS; models run on the CPU")


def native_engine(module: Any) -> Row:
    """Whether the engine of the default deployment can be imported."""
    if isinstance(module, Exception):
        return Row("native engine", Status.NO, f"{module}; pools can only be emulated until then", needed=True)
    return Row(
        "native engine", Status.OK, "Llama, Mistral, Mixtral, Qwen, Phi-3, Gemma and gpt-oss models", needed=True
    )


def c_parts(copy_runs: CopyRuns | None) -> Row:
    """What the package's build compiled."""
    if copy_runs is None:
        advice = "KV of other block sizes is converted more slowly; install a C compiler, then Twinfer again"
        return Row("KV copies", Status.NOTE, f"not compiled: {advice}")
    return Row("KV copies", Status.OK, "KV of other block sizes is copied past the caches")


def kernels(module: Any) -> Row:
    """Which code of our own multiplies with weights on the CPU, or what to do to have it."""
    name = "CPU kernels"
    if isinstance(module, Exception):
        return Row(name, Status.NO, "unknown without torch")
    found = module.find_kernels(1)
    if found is None:
        advice = "install a C compiler such as gcc and then Twinfer again, or 'make clean setup'"
        return Row(name, Status.NOTE, f"not built, so torch multiplies and int8 and int4 are slow; {advice}")
    words = {"AMX": "AMX and AVX-512", "AVX512": "AVX-512 with bf16 and VNNI"}
    if found.isa.name not in words:
        advice = "plain C for int8 and int4, torch for the rest; AVX-512 with bf16 is missing here"
        return Row(name, Status.NOTE, advice)
    return Row(name, Status.OK, f"{words[found.isa.name]} for bf16, int8 and int4 weights")


def transport(name: str, words: str, source: KVSource, sink: KVSink[PeerT], *, needed: bool = True) -> Row:
    """Pull one block from a pool of our own, the way a decode worker does."""
    handoff = HandoffId("d0" * 16)
    target = memoryview(bytearray(b"\xff" * mmap.PAGESIZE))
    try:
        pool = PoolMemory(1, mmap.PAGESIZE, prefault=False)
        with contextlib.closing(pool), contextlib.closing(source), contextlib.closing(sink):
            peer = sink.connect(source.start(pool), pool.block_bytes)
            with contextlib.closing(peer):
                source.offer(handoff, [0])
                sink.admit(handoff)
                digest = sink.pull(peer, handoff, [0], [target], time.monotonic() + _PULL_S)
            whole = digest == digest_blocks(pool, [0])
    except (OSError, TwinferError) as error:
        return Row(name, Status.NO, f"{error}", needed=needed)
    if not whole:
        return Row(name, Status.NO, "a block arrived damaged; this machine's memory or kernel is faulty", needed=needed)
    return Row(name, Status.OK, words, needed=needed)


def nixl() -> Row:
    """An optional extra, tried on this machine's loopback."""
    if (missing := nixl_available()) is not None:
        return Row("NIXL", Status.NOTE, missing)
    devices = ", ".join(rdma_devices()) or "none"
    try:
        return transport("NIXL", f"UCX works; RDMA devices: {devices}", NixlSource(), NixlSink(), needed=False)
    except ConfigError as error:
        return Row("NIXL", Status.NO, str(error))


def populate() -> Row:
    """Whether the kernel can make the pages of a pool ahead of use."""
    name = "MADV_POPULATE_WRITE"
    with mmap.mmap(-1, mmap.PAGESIZE) as mapping:
        first = ctypes.c_char.from_buffer(mapping)
        address = ctypes.c_void_p(ctypes.addressof(first))
        libc = ctypes.CDLL(None, use_errno=True)
        result = libc.madvise(address, ctypes.c_size_t(mmap.PAGESIZE), _MADV_POPULATE_WRITE)
        del first
    if result == 0:
        return Row(name, Status.OK, "KV pools are made ready in the background")
    return Row(name, Status.NOTE, "needs Linux 5.14: until then the first use of each KV block is slow")


def foreign() -> Row:
    """Other people's engines and clusters, of which this version uses none."""
    present = [name for name in ("vllm", "ray") if importlib.util.find_spec(name) is not None]
    found = f"{', '.join(present)} installed" if present else "none installed"
    return Row("vLLM, Ray", Status.NOTE, f"{found}; this version does not use them yet")


def port(host: str, number: int) -> Row:
    """Whether the gateway could listen."""
    name = f"port {number}"
    try:
        bind(host, number).close()
    except TwinferError:
        return Row(name, Status.NO, f"taken on {host}; free it, or use twinfer serve --port 0", needed=True)
    return Row(name, Status.OK, f"free on {host}", needed=True)


def cache(directory: Path) -> Row:
    """Where prepared weights go."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        advice = f"set {CACHE_VARIABLE} or cache_dir to a directory that can be"
        return Row("cache", Status.NO, f"{directory} cannot be written; {advice}", needed=True)
    free = shutil.disk_usage(existing).free
    text = f"{directory}, {_gib(free)} free"
    if free < MIN_CACHE_BYTES:
        return Row("cache", Status.NOTE, f"{text}; prepared weights take as much room as the model", needed=True)
    return Row("cache", Status.OK, text, needed=True)


def demo_model() -> Row:
    """Whether the bundled model is there and whole."""
    try:
        found = read_checkpoint(locate("demo"))
    except TwinferError as error:
        return Row("demo model", Status.NO, f"{error}; install Twinfer again", needed=True)
    num_bytes = sum(path.stat().st_size for path in found.files)
    return Row("demo model", Status.OK, f"{num_bytes / 1e6:.0f} MB at {found.directory}", needed=True)


def _imported(name: str) -> Any:
    """A module, or the error that its import ended with."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        return error


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _cpu_quota() -> float | None:
    """Cores' worth of time that the control group grants; ``None`` without a bound."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _available_bytes() -> int | None:
    """What the machine and the control group both have left; ``None`` where neither says."""
    bounds = []
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        bounds.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        bounds.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(bounds, default=None)


def _cpu_flags() -> list[str] | None:
    """The first CPU's flags, as Linux names them."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, words = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return words.split()
    return None


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"


def _table(rows: Iterable[Row]) -> Table:
    colours = {Status.OK: "green", Status.NO: "red", Status.NOTE: "yellow"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        table.add_row(row.name, Text(row.status.value, colours[row.status]), row.text)
    return table
