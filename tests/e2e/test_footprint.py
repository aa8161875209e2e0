"""What a deployment costs: memory with a model of real size, and processor time while nobody asks anything."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import chat, openai_client
from tests.e2e.deployment import Deployment, serving
from tests.e2e.processes import cpu_s, module_of, pss_bytes

GIB = 2**30
QUESTION = "def binary_search(items, wanted):\n    low, high = 0, len(items)\n" * 4
IDLE_S = 4.0
MAX_IDLE_SHARE = 0.05
"""Of a core. An idle process takes far less than the 2 % it may, but a busy machine's clock ticks are coarse."""


def test_idle(demo: Deployment):
    """Without requests, gateway and workers hardly run: nothing spins."""
    demo.wait_idle()
    before = {pid: cpu_s(pid) for pid in demo.children}
    time.sleep(IDLE_S)  # the measurement itself
    shares = {f"{module_of(pid)} {pid}": (cpu_s(pid) - spent) / IDLE_S for pid, spent in before.items()}
    print(shares)
    assert len(shares) == 3
    assert max(shares.values()) < MAX_IDLE_SHARE


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Path]:
    """Random weights in the shape of Qwen2.5-0.5B, with the demo model's much smaller vocabulary."""
    directory = tmp_path / "Qwen2.5-0.5B"
    subprocess.run([sys.executable, "tools/make_checkpoint.py", "qwen2.5-0.5b", str(directory)], check=True)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Prepared weights go where they are deleted right after."""
    monkeypatch.setenv("TWINFER_CACHE", str(tmp_path / "cache"))
    yield
    shutil.rmtree(tmp_path / "cache")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("cache")
async def test_half_a_billion_parameters(checkpoint: Path, place: Path):
    """One gateway and two workers with 512 MiB of KV each stay below 4 GiB; ids without text become U+FFFD."""
    with serving(place, "", source=checkpoint) as deployment:
        async with openai_client(deployment.url) as client:
            [model] = [model.id async for model in client.models.list()]
            assert model == "local.qwen2.5-0.5b"
            heard = [
                await chat(client, model, f"# {number}\n{QUESTION}", 8, ignore_eos=True, route="disaggregated")
                for number in range(3)
            ]
        pss = {f"{module_of(pid)} {pid}": pss_bytes(pid) / GIB for pid in deployment.pids}
        print(f"ready in {deployment.ready_s} s, PSS in GiB: {pss}, together {sum(pss.values()):.2f}")
        assert len(pss) == 4
        assert sum(pss.values()) < 4
        assert {answer.route for answer in heard} == {"disaggregated"}
        assert all(len(answer.tokens) == 8 for answer in heard)
        assert "\N{REPLACEMENT CHARACTER}".encode() in heard[0].tokens
        assert heard[0].text == b"".join(heard[0].tokens).decode(errors="replace")
