"""``twinfer devices measure``: measures this machine, and on request keeps it as the device ``this``."""

import contextlib
import datetime
import importlib.util
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from twinfer.cli.measure_steps import StepsOf, fitted_to_steps
from twinfer.cli.quantities import in_unit
from twinfer.core.clock import Clock, MonotonicClock
from twinfer.devices.measure import copy_rates, matmul_rates, read_rates, tcp_rates
from twinfer.devices.profile import LinkProfile, RooflineProfile
from twinfer.devices.this import Measurements, this_device, this_links
from twinfer.devices.write import write_entry


def measure(directory: Path | None, steps: StepsOf | None = None) -> int:
    """Measure, print, and write the profiles where a directory is given.

    Args:
        directory: of profiles of this machine.
        steps: of which model on this machine's processor; ``None`` measures no steps, and guesses which share of the
            rates they reach.
    """
    console = Console(highlight=False, markup=False)
    with console.status("measuring, some seconds; other work on this machine shows in the figures"):
        found = look(MonotonicClock(), datetime.date.today())
    device, links = this_device(found), this_links(found)
    console.print(_table(device, links))
    console.print(f"\nThe matrix product is {found.matmul}.", soft_wrap=True)
    if steps is not None:
        with console.status("timing steps of the model, perhaps for minutes"):
            device, said = fitted_to_steps(device, steps, MonotonicClock(), found.origin)
        console.print(said, soft_wrap=True)
    if directory is None:
        console.print("Nothing was written; with --write this machine is the device `this`.")
        return 0
    paths = [write_entry(entry, directory) for entry in (device, *links)]
    console.print(f"Written to {directory}: {', '.join(path.name for path in paths)}")
    console.print("`twinfer devices show this` shows them; delete the files to forget them.")
    return 0


def look(clock: Clock, today: datetime.date) -> Measurements:
    """Take all measurements, one after the other."""
    cores = len(os.sched_getaffinity(0))
    matmul, flops = _matmul(clock)
    return Measurements(
        machine=f"{processor()}, {cores} cores",
        when=today.isoformat(),
        matmul=matmul,
        flops=flops,
        read_bytes_per_s=read_rates(clock, cores),
        copy_bytes_per_s=copy_rates(clock),
        tcp_bytes_per_s=tcp_rates(clock),
        memory_bytes=_memory_bytes(),
    )


def _matmul(clock: Clock) -> tuple[str, Sequence[float]]:
    """What multiplied matrices, and its rates: torch in BF16, else numpy in FP32."""
    if importlib.util.find_spec("torch") is None:
        return "FP32 in numpy, for torch is not installed: a floor for BF16", matmul_rates(clock)
    probe: Callable[[Clock], Sequence[float]]
    from twinfer.model.probe import bf16_matmul_rates as probe

    return "BF16 in torch, 2048 x 2048", probe(clock)


def _table(device: RooflineProfile, links: Sequence[LinkProfile]) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("measured", "median", "low", "high"):
        table.add_column(head)
    named = [
        ("matrix product, all cores", "bf16_flops", device.bf16_flops),
        ("reading memory, all cores", "memory_bytes_per_s", device.memory_bytes_per_s),
        ("copying into shared memory, one core", "line_bytes_per_s", links[0].line_bytes_per_s),
        ("TCP on loopback, one connection", "line_bytes_per_s", links[1].line_bytes_per_s),
    ]
    for what, field, value in named:
        table.add_row(what, *(in_unit(field, number) for number in (value.value, value.low, value.high)))
    return table


def processor() -> str:
    """The name that the machine gives its processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, words = line.partition(":")
            if name.strip() == "model name":
                return words.strip()
    return platform.machine()


def _memory_bytes() -> int:
    """What the machine has, or less where the control group says so."""
    bounds = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError, ValueError):
        bounds.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return min(bounds)
