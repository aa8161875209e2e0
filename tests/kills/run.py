"""One deployment of real processes, and ``twinfer chaos`` with nothing but kills on it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.deployment import serving

LEASE_S = 2.0
EMULATED = """
[[model]]
id = "twinfer.emulated-v1:0"

[[pool]]
name = "prefill"
role = "prefill"
engine = "emulated"
kv_mib = 8
max_step_tokens = 128
emulation = { prefill_tokens_per_s = 4000 }

[[pool]]
name = "decode"
role = "decode"
engine = "emulated"
kv_mib = 8
emulation = { decode_step_ms = 5 }
"""
"""Any wrong, stale or foreign KV block gives a wrong token, and prompts and answers last long enough to be met."""
PATIENCE_S = 45.0
"""For a worker that starts again: on a slow machine, with a model, that takes longer than anybody has to wait."""
HANDOFF = (
    f"handoff.lease_s={LEASE_S}",
    "handoff.heartbeat_s=0.5",
    "handoff.chunk_kib=16",
    f"handoff.max_busy_s={PATIENCE_S}",
)


def kill_under_load(
    directory: Path, num_kills: int, seed: int, *, demo: bool = False, workers: int = 1, prompts: int = 24
) -> tuple[int, Any]:
    """Start a deployment, kill its processes one after the other, and end it; it must leave nothing.

    Args:
        directory: for files; deleted by nobody.
        num_kills: evenly over the roles, gateway included.
        seed: of targets, moments and questions.
        demo: the demo model in place of emulated engines.
        workers: of each role.
        prompts: different ones; each is answered twice before the first kill.

    Returns:
        The exit code of ``twinfer chaos``, 0 if all is well, and its JSON; what it says goes to standard output.
    """
    sets = (*HANDOFF, f"pool.prefill.workers={workers}", f"pool.decode.workers={workers}")
    result = directory / "result.json"
    options = ["--only", "kill", "--strict", "--events", str(num_kills), "--seed", str(seed)]
    options += ["--prompts", str(prompts), "--json", str(result)]
    with serving(directory, "" if demo else EMULATED, *sets) as deployment:
        code = subprocess.run(
            [sys.executable, "-m", "twinfer", "chaos", deployment.url, *options],
            env=os.environ | {"TMPDIR": str(directory), "COLUMNS": "200"},
            check=False,
        ).returncode
    return code, json.loads(result.read_bytes())
