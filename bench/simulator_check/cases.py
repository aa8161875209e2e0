"""The two deployments that are compared with their simulation, and what they are asked."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from bench.gateway_servers import the_model
from bench.simulator_check.compare import Bars
from bench.simulator_check.fit import OVERHEADS
from bench.simulator_check.workload import Workload
from twinfer.cli.emulation import Surroundings, emulated_pair
from twinfer.core.capabilities import Role
from twinfer.core.config import Config, ModelConfig, PoolConfig
from twinfer.devices.catalogue import measured_directory

BLOCK_TOKENS = 64
"""More than what all prompts begin with, which is the chat template's."""


def letter() -> int:
    """A token that is a letter: one without text could not be seen by a client."""
    return the_model().tokenizer.encode("x", add_special_tokens=False)[0]


def nothing(cache_dir: Path) -> None:
    """No preparation."""


@dataclass(frozen=True, slots=True)
class Case:
    """A deployment and its workloads.

    Attributes:
        what: in words.
        said: the command's arguments.
        workloads: that the parameters are fitted on, and that they are tried on.
        names: of the parameters that are fitted.
        steady: drift of the machine up to which a repetition counts.
        load: share of the time that the busiest worker is to be in steps, for as many requests as that takes; 0 asks as
            many as the workloads say.
        prepare: makes what the deployment and the simulator need in a cache directory.
    """

    what: str
    said: Sequence[str]
    config: Config
    workloads: tuple[Workload, Workload]
    names: Sequence[str]
    bars: Bars
    steady: float
    load: float = 0.0
    prepare: Callable[[Path], None] = nothing


def emulated(options: argparse.Namespace) -> Case:
    """Trainium3 and CS-3 with virtual KV over EFA, slowed down alike."""
    config = emulated_pair("trn3", "cs3", "gpt-oss-120b", Surroundings("virtual", "", options.time_scale))
    pools = tuple(
        msgspec.structs.replace(
            pool,
            block_tokens=BLOCK_TOKENS,
            emulation=msgspec.structs.replace(pool.emulation, script_ids=(letter(),)),
        )
        for pool in config.pool
    )
    return Case(
        what=f"`trn3` and `cs3` with gpt-oss-120b, KV virtual, {options.time_scale:g} times as slow",
        said=("emulated", "--time-scale", f"{options.time_scale:g}"),
        config=msgspec.structs.replace(config, pool=pools),
        workloads=(
            Workload("servegen_reason_deepseek-r1_1h_2rps.csv", 2, 90, 3.6 * options.time_scale, (0.5, 0.3)),
            Workload("azure_llm_2023_conv.csv", 1, 180, 7.2 * options.time_scale, (0.5, 0.5)),
        ),
        names=OVERHEADS,
        bars=Bars(0.05, 0.15),
        steady=0.04,
    )


def native(options: argparse.Namespace) -> Case:
    """A checkpoint with one worker and one core for prompts and one for tokens; nobody guesses."""
    cores = sorted(os.sched_getaffinity(0))
    pools = tuple(
        PoolConfig(
            name=role.value,
            role=role,
            weights="bf16",
            speculation="off",
            block_tokens=BLOCK_TOKENS,
            cores=(core,),
        )
        for role, core in ((Role.PREFILL, cores[0]), (Role.DECODE, cores[-1]))
    )
    model = ModelConfig(id="twinfer.measured-v1:0", source=options.model)
    return Case(
        what=f"{Path(options.model).name} in bf16, a worker for prompts and one for tokens, of one core each",
        said=("native", "--model", Path(options.model).name),
        config=Config(model=(model,), pool=pools),
        workloads=(
            Workload(
                "servegen_reason_deepseek-r1_1h_2rps.csv", 2, 60, 30.0, (0.3, 0.1), longest=1200, longest_answer=200
            ),
            Workload("azure_llm_2023_conv.csv", 1, 120, 45.0, (0.4, 0.5), longest=1200, longest_answer=200),
        ),
        names=OVERHEADS,
        bars=Bars(0.15, 0.25),
        steady=0.08,
        load=0.55,
        prepare=partial(measure_this, options.model, cores[-1]),
    )


def measure_this(model: str, core: int, cache_dir: Path) -> None:
    """A profile of one core of this machine, fitted to steps of the model, unless there is one already."""
    directory = measured_directory(cache_dir)
    if not (directory / "this.toml").exists():
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        try:
            command = [sys.executable, "-m", "twinfer", "devices", "measure", "--model", model, "--weights", "bf16"]
            subprocess.run([*command, "--write"], check=True, env=os.environ | {"TWINFER_CACHE": str(cache_dir)})
        finally:
            os.sched_setaffinity(0, allowed)


CASES: Mapping[str, Callable[[argparse.Namespace], Case]] = {"emulated": emulated, "native": native}
