"""vLLM's rows: one server with chunked prefill, and a prefill/decode pair behind a proxy."""

import json
import sys

from bench.published.launch import Program, StartError
from bench.published.systems import CHUNK_TOKENS, CONTEXT_TOKENS, KV_MIB, MODEL, Site, System

PATIENCE_S = 420.0
"""It compiles when it starts."""
START_S = 50.0


def server(site: Site, name: str, cores: str, kv_gib: int, options: list[str], **environment: str) -> Program:
    """One instance on these cores. Its ``vllm`` command looks for a package of another name, the module does not.

    Raises:
        StartError: vLLM is not installed.
    """
    python, port = site.peers / "vllm" / "bin" / "python", next(site.ports)
    if not (site.peers / "vllm" / ".ready").exists():
        raise StartError("not installed; see make bench-setup")
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(site.checkpoint)]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16"]
    command += ["--max-model-len", str(CONTEXT_TOKENS), "--max-num-batched-tokens", str(CHUNK_TOKENS)]
    command += ["--max-num-seqs", "64", "--enable-chunked-prefill", "--enable-prefix-caching"]
    command += ["--disable-uvicorn-access-log", *options]
    variables = {
        "VLLM_CPU_KVCACHE_SPACE": str(kv_gib),
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return Program(name, command, port, "/health", variables | environment, PATIENCE_S)


def _together(site: Site) -> list[Program]:
    return [server(site, "vllm", ",".join(map(str, site.cores)), KV_MIB // 1024, [])]


def _pair(site: Site) -> list[Program]:
    """Prefill, decode and the proxy; KV goes through NIXL."""
    transfer = json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_buffer_device": "cpu"})
    half = len(site.cores) // 2
    sides = {"vllm-prefill": site.cores[:half], "vllm-decode": site.cores[half:]}
    if not half:
        raise StartError("a pair needs two cores")
    servers = [
        server(
            site,
            name,
            ",".join(map(str, cores)),
            KV_MIB // 2048,
            ["--kv-transfer-config", transfer],
            VLLM_NIXL_SIDE_CHANNEL_PORT=str(next(site.ports)),
        )
        for name, cores in sides.items()
    ]
    port = next(site.ports)
    command = [sys.executable, "-m", "bench.published.pair_proxy", str(port), *(one.url for one in servers)]
    return [*servers, Program("proxy", command, port, "/v1/models")]


VLLM = System("vllm-bf16", "vLLM, chunked prefill", "vllm", "bf16", "peer", START_S, _together)
VLLM_PAIR = System(
    "vllm-pair-bf16", "vLLM, prefill and decode on a core each", "vllm", "bf16", "peer", 2 * START_S, _pair
)
