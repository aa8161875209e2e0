"""The README is true: it is short, its links lead somewhere, and its commands do what it says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import TinyCheckpoints
from tests.e2e.deployment import Deployment
from twinfer.core.config_text import parse_config

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = ROOT / "src" / "twinfer" / "demo"
ADDRESS = "http://127.0.0.1:8000"
MAX_LINES = 150


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def made(target: str) -> list[list[str]]:
    """What ``ARGS`` of every ``make TARGET`` in the README holds, in words."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith(f"make {target}")]
    variables = [dict(word.split("=", 1) for word in shlex.split(line, comments=True)[2:]) for line in lines]
    return [shlex.split(found.get("ARGS", "")) for found in variables]


def environment() -> dict[str, str]:
    """This one, without what would lead a client elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def test_length():
    """A README is read when it is short."""
    assert len(TEXT.splitlines()) < MAX_LINES


def test_links():
    """Every link to a file or folder leads to one."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT)
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_folder_list_is_complete():
    """Each package is listed, and nothing else."""
    listed = re.findall(r"\[src/twinfer/(\w+)\]", TEXT)
    there = {path.name for path in (ROOT / "src" / "twinfer").iterdir() if path.is_dir()} - {"__pycache__"}
    assert sorted(listed) == sorted(there)


def test_make_targets_exist():
    """Commands named in the README are targets of the Makefile."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("make ")}
    assert {"serve", "test"} <= named <= targets


@pytest.mark.e2e
@pytest.mark.torch
@pytest.mark.parametrize("arguments", made("serve"), ids=" ".join)
def test_serving(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: TinyCheckpoints):
    """What ``make serve`` runs starts and answers; after the plain one the examples run as they are printed."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    vocab_size = json.loads((DEMO / "config.json").read_text())["vocab_size"]
    shutil.copytree(tiny("tiny-qwen3", vocab_size=vocab_size), tmp_path / "my-model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, tmp_path / "my-model")
    topology = blocks("toml")[0]
    (tmp_path / "twinfer.toml").write_text(topology)
    monkeypatch.chdir(tmp_path)
    deployment = Deployment(tmp_path, ["serve", *arguments, "--port", "0"], {"TWINFER_CACHE": str(tmp_path / "cache")})
    try:
        deployment.wait_ready()
        if not arguments:
            run_examples(deployment.url)
        elif arguments[0] == "--config":
            assert len(deployment.scrape().roles) == sum(pool.workers for pool in parse_config(topology).pool)
            ask(deployment.url, "coder")
        else:
            ask(deployment.url, "my-model")
        assert deployment.stop() == 0
    finally:
        deployment.destroy()


def run_examples(url: str) -> None:
    """Every shell block that calls the server, and every Python block; each prints an answer."""
    if shutil.which("curl") is None:
        pytest.skip("the README's example for the shell needs curl")
    commands = [["bash", "-euc", block] for block in blocks("sh") if "curl" in block]
    commands += [[sys.executable, "-c", block] for block in blocks("python")]
    assert len(commands) == 2
    for *command, block in commands:
        assert ADDRESS in block
        literal = [*command, block.replace(ADDRESS, url)]
        done = subprocess.run(literal, capture_output=True, text=True, timeout=60, env=environment())
        assert done.returncode == 0, done.stderr + done.stdout
        assert done.stdout.strip()


def ask(url: str, model: str) -> None:
    """One answer from a model, by the name the README uses."""
    body = {"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "import " * 80}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).raise_for_status().json()
    assert answer["twinfer"]["route"] == "disaggregated"
