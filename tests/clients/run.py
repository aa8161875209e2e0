"""Runs the real clients against a real deployment with emulated engines, and against a model that follows rules.

    make clients        once: their environments and some of their sources, half a gigabyte
    make test-clients

Each environment below ``.venv-clients`` has its own versions (``requirements-*.txt``) and runs every file of ``suite``
whose client it has. A client that is not installed is named in the summary, never left out in silence. Then come the
tests that clients bring themselves (``sources.py``).
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.clients.sources import run_sources

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".venv-clients"
DEPLOYMENT = ("twinfer", "serve", "--port", "0", "--config", str(HERE / "deployment.toml"))
READY = re.compile(r"serves .* at (https?://\S+) \(ready")
AMBIENT = {
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
"""What clients find in their environment."""


def main() -> int:
    """Serve, run the suite in every environment and then the clients' own tests, stop."""
    environments = sorted(ENVIRONMENTS.glob("*/bin/python"))
    if not environments:
        print(f"there is no environment in {ENVIRONMENTS}; run make clients first", file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory() as name,
        serving(*DEPLOYMENT, "--set", f"identity.database=sqlite:///{name}/open.db") as url,
        serving("tests.clients.scripted") as scripted_url,
        serving_with_keys(Path(name)) as keyed,
    ):
        urls = {"TWINFER_URL": url, "TWINFER_SCRIPTED_URL": scripted_url, "TWINFER_KEYED": json.dumps(keyed)}
        modules = {"TWINFER_NODE_MODULES": str(ENVIRONMENTS / "javascript" / "node_modules")}
        codes = [run_suite(python, AMBIENT | urls | modules) for python in environments]
        endpoints = {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": scripted_url,
            "AWS_ENDPOINT_URL_BEDROCK": scripted_url,
            "TEST_API_BASE_URL": f"{scripted_url}/v1",
        }
        newest = ENVIRONMENTS / "new" / "bin" / "python"
        return max(*codes, run_sources(ENVIRONMENTS / "sources", newest, AMBIENT | endpoints))


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """Where a Python module serves that says so when it is ready.

    What it says afterwards is read and dropped: nobody can go on for long whose words nobody takes.

    Raises:
        SystemExit: it never did.
    """
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        rest = threading.Thread(target=deque, args=(process.stderr, 0))
        try:
            url = next((found[1] for line in process.stderr if (found := READY.search(line))), "")
            if not url:
                raise SystemExit(f"{arguments[0]} did not start")
            rest.start()
            yield url
        finally:
            process.terminate()
            if rest.ident is not None:
                rest.join()


@contextlib.contextmanager
def serving_with_keys(directory: Path) -> Iterator[Mapping[str, Any]]:
    """A deployment over TLS that asks for keys: where, whom to trust, and keys of each kind as clients find them."""
    endpoint, database = directory / "endpoint", f"identity.database=sqlite:///{directory}/keys.db"
    _twinfer("certs", str(endpoint), "--endpoint")
    lasting, temporary = (
        json.loads(_twinfer("keys", "create", "--tenant", "acme", "--json", "--set", database, *more))
        for more in ((), ("--temporary",))
    )
    names = {"AWS_ACCESS_KEY_ID": "access_key_id", "AWS_SECRET_ACCESS_KEY": "secret_access_key"}
    tls = ("--set", f"gateway.tls_cert={endpoint}/cert.pem", "--set", f"gateway.tls_key={endpoint}/key.pem")
    with serving(*DEPLOYMENT, "--set", database, *tls) as url:
        yield {
            "url": url,
            "ca": str(endpoint / "ca.pem"),
            "signed": {variable: lasting[name] for variable, name in names.items()},
            "temporary": {variable: temporary[name] for variable, name in names.items()}
            | {"AWS_SESSION_TOKEN": temporary["session_token"]},
            "bearer": {"AWS_BEARER_TOKEN_BEDROCK": lasting["bearer_key"]},
        }


def _twinfer(*arguments: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "twinfer", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout


def run_suite(python: Path, environment: Mapping[str, str]) -> int:
    """All tests of one environment; their exit code."""
    name = python.parents[1].name
    print(f"\nclients of {name}", flush=True)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    suite = str(HERE / "suite")
    arguments = ["-q", "-rs", "-p", "no:cacheprovider", "--rootdir", suite, "--confcutdir", suite, "-c", os.devnull]
    command = [str(python), "-m", "pytest", *arguments, suite]
    return subprocess.run(command, env=os.environ | environment | {"PATH": path}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
