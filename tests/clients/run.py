"""Runs the real clients against a real deployment with emulated engines.

    make clients        once: their environments, half a gigabyte
    make test-clients

Each environment below ``.venv-clients`` has its own versions (``requirements-*.txt``) and runs every file of ``suite``
whose client it has. A client that is not installed is named in the summary, never left out in silence.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".venv-clients"
READY = re.compile(r"serves .* at (http://\S+) \(ready")


def main() -> int:
    """Serve, run the suite in every environment, stop."""
    environments = sorted(ENVIRONMENTS.glob("*/bin/python"))
    if not environments:
        print(f"there is no environment in {ENVIRONMENTS}; run make clients first", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "twinfer", "serve", "--port", "0", "--config", str(HERE / "deployment.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as serving:
        assert serving.stderr is not None
        try:
            url = next((found[1] for line in serving.stderr if (found := READY.search(line))), "")
            if not url:
                print("the deployment did not start", file=sys.stderr)
                return 1
            return max(run_suite(python, url) for python in environments)
        finally:
            serving.terminate()


def run_suite(python: Path, url: str) -> int:
    """All tests of one environment; their exit code."""
    name = python.parents[1].name
    print(f"\nclients of {name}", flush=True)
    environment = {
        "TWINFER_URL": url,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
    }
    arguments = [
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(HERE / "suite"),
        "--confcutdir",
        str(HERE / "suite"),
        "-c",
        os.devnull,
    ]
    command = [str(python), "-m", "pytest", *arguments, str(HERE / "suite")]
    return subprocess.run(command, env=os.environ | environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
