"""Which systems a campaign measures, in order."""

from bench.published.llama_systems import llama
from bench.published.twinfer_systems import aggregated, disaggregated, routed, specialised
from bench.published.vllm_systems import VLLM, VLLM_PAIR

AT_FIXED_RATES = (
    disaggregated("bf16"),
    aggregated("bf16", 1),
    aggregated("bf16", 2),
    routed("bf16"),
    specialised(),
    VLLM,
    VLLM_PAIR,
    llama("bf16"),
    aggregated("int8", 1),
    llama("int8"),
    aggregated("int4", 1),
    llama("int4"),
)
MORE = (
    disaggregated("int8"),
    aggregated("int8", 2),
    disaggregated("int4"),
    aggregated("int4", 2),
)
"""Of a campaign that has the time."""
IN_FULL = (*AT_FIXED_RATES, *MORE)
