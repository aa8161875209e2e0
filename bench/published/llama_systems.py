"""llama.cpp's rows: ``llama-server`` with continuous batching."""

import subprocess
from pathlib import Path

from bench.published.launch import Program, StartError
from bench.published.systems import CHUNK_TOKENS, MODEL, Site, System

ROOT = Path(__file__).parents[2]
SLOTS = 32
CONTEXT_TOKENS = 65536
"""Of all slots together, a bound on KV of 0.8 GB."""
QUANTISATION = {"bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}
CONVERT = "import sys; from bench.engines.llama_engine import model_file; print(model_file(*sys.argv[1:]))"


def model_file(site: Site, precision: str) -> str:
    """The checkpoint as a GGUF file, made when there is none.

    Raises:
        StartError: llama.cpp is not installed, or cannot convert it.
    """
    python = site.peers / "llama" / "bin" / "python"
    if not all((site.peers / name / ".ready").exists() for name in ("llama", "llama-server")):
        raise StartError("not installed; see make bench-setup")
    command = [str(python), "-c", CONVERT, str(site.checkpoint), precision]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartError(
            f"the model cannot be converted: {(done.stderr.strip().splitlines() or ['no reason said'])[-1]}"
        )
    return done.stdout.strip().splitlines()[-1]


def llama(precision: str) -> System:
    """One server with both cores."""

    def programs(site: Site) -> list[Program]:
        server, port, threads = (
            site.peers / "llama-server" / "bin" / "llama-server",
            next(site.ports),
            str(len(site.cores)),
        )
        command = [str(server), "--model", model_file(site, precision), "--alias", MODEL]
        command += ["--host", "127.0.0.1", "--port", str(port), "--threads", threads, "--threads-batch", threads]
        command += ["--parallel", str(SLOTS), "--kv-unified", "--ctx-size", str(CONTEXT_TOKENS)]
        command += ["--batch-size", str(CHUNK_TOKENS), "--ubatch-size", str(CHUNK_TOKENS)]
        return [Program("llama-server", command, port, "/health")]

    title = f"llama.cpp's server, {QUANTISATION[precision]}"
    return System(f"llama-{precision}", title, "llama.cpp", precision, "peer", 5.0, programs)
