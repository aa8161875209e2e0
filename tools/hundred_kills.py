"""Kill prefill worker, decode worker and gateway with SIGKILL at random moments under load, and check every answer.

    python tools/hundred_kills.py
    python tools/hundred_kills.py --events 300 --seed 7
    python tools/hundred_kills.py --model demo

Starts a deployment of its own, two workers of each role with a lease of two seconds, and runs ``twinfer chaos --only
kill`` on it: no wrong text, no client stuck, no clean end after a failure, and on every surviving worker free + cached
+ live = total within the lease and a second.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EMULATED = """
[[model]]
id = "twinfer.emulated-v1:0"

[[pool]]
name = "prefill"
role = "prefill"
engine = "emulated"
kv_mib = 8
workers = 2
max_step_tokens = 128
emulation = { prefill_tokens_per_s = 4000 }

[[pool]]
name = "decode"
role = "decode"
engine = "emulated"
kv_mib = 8
workers = 2
max_step_tokens = 128
emulation = { decode_step_ms = 5 }
"""
DEMO = """
[[pool]]
name = "prefill"
role = "prefill"
kv_mib = 64
workers = 2

[[pool]]
name = "decode"
role = "decode"
kv_mib = 64
workers = 2
"""
HANDOFF = "\n[handoff]\nlease_s = 2.0\nheartbeat_s = 0.5\nchunk_kib = 16\n"
POLL_S = 0.05
TWINFER = (sys.executable, "-m", "twinfer")


def main() -> int:
    """Serve, disturb, and stop; exits as ``twinfer chaos`` does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("emulated", "demo"), default="emulated", help="who answers")
    parser.add_argument("--events", type=int, default=102, help="kills, a third of them each role's (default: 102)")
    parser.add_argument("--seed", type=int, default=0, help="of their moments (default: 0)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "kills.toml")
        config.write_text((EMULATED if options.model == "emulated" else DEMO) + HANDOFF)
        command = [*TWINFER, "serve", "--port", "0", "--config", str(config)]
        with Path(directory, "log").open("w+") as log, subprocess.Popen(command, stderr=log) as serving:
            try:
                url = _url(serving, log.name)
                chaos = ("--only", "kill", "--events", str(options.events), "--seed", str(options.seed))
                return subprocess.run([*TWINFER, "chaos", url, *chaos]).returncode
            finally:
                serving.terminate()


def _url(serving: subprocess.Popen[bytes], log: str) -> str:
    """Where it serves, as soon as it does."""
    while serving.poll() is None:
        if found := re.search(r"serves \S+ at (\S+) \(ready", Path(log).read_text()):
            return found[1]
        time.sleep(POLL_S)
    raise SystemExit(f"the deployment did not start:\n{Path(log).read_text()}")


if __name__ == "__main__":
    sys.exit(main())
