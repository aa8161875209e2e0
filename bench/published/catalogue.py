"""Which cells a campaign measures, in order."""

from collections.abc import Sequence

from bench.published.cells import Cell
from bench.published.llama_systems import llama
from bench.published.systems import System
from bench.published.twinfer_systems import aggregated, disaggregated, routed, specialised
from bench.published.vllm_systems import VLLM, VLLM_PAIR
from bench.published.workloads import CHAT, WORKLOADS

UNQUANTISED = (
    disaggregated("bf16"),
    aggregated("bf16", 1),
    aggregated("bf16", 2),
    routed("bf16"),
    specialised(),
    VLLM,
    VLLM_PAIR,
    llama("bf16"),
)
QUANTISED = (aggregated("int8", 1), llama("int8"), aggregated("int4", 1), llama("int4"))
MORE = (disaggregated("int8"), aggregated("int8", 2), disaggregated("int4"), aggregated("int4", 2))
SYSTEMS: Sequence[System] = (*UNQUANTISED, *QUANTISED, *MORE)


def at_fixed_rates() -> list[Cell]:
    """What 25 minutes are enough for: of quantised weights only chats."""
    return [*(Cell(one, each) for one in UNQUANTISED for each in WORKLOADS), *(Cell(one, CHAT) for one in QUANTISED)]


def in_full() -> list[Cell]:
    """Everything."""
    return [Cell(one, each) for one in SYSTEMS for each in WORKLOADS]
