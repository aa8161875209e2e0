"""What cannot be done is said in one clear sentence, and disturbs nothing that runs."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import DEMO
from tests.e2e.deployment import Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID
from twinfer.model.checkpoint import locate

CHAT = "/v1/chat/completions"
CONVERSE = f"/model/{DEMO}/converse"


def chat(**changes: Any) -> dict[str, Any]:
    """A chat completion that would be answered but for the changes."""
    return {"model": DEMO, "max_tokens": 4, "messages": [{"role": "user", "content": "def f():"}]} | changes


def converse(max_tokens: int = 4, text: str = "def f():") -> dict[str, Any]:
    """The same for Converse."""
    messages = [{"role": "user", "content": [{"text": text}]}]
    return {"messages": messages, "inferenceConfig": {"maxTokens": max_tokens}}


LONG = "a = 1\n" * 4000
REQUESTS = {
    "model": (CHAT, chat(model="nobody.knows-v1:0"), 404, "'nobody.knows-v1:0' is not served here"),
    "model, bedrock": ("/model/nobody.knows-v1:0/converse", converse(), 400, "model identifier is invalid"),
    "json": (CHAT, b'{"model": ', 400, "Malformed input request"),
    "json, bedrock": (CONVERSE, b"[1, 2", 400, "Malformed input request"),
    "context": (CHAT, chat(messages=[{"role": "user", "content": LONG}]), 400, "maximum context length is 4096"),
    "context, bedrock": (CONVERSE, converse(text=LONG), 400, "maximum context length is 4096"),
    "no tokens": (CHAT, chat(max_tokens=0), 400, "max_tokens"),
    "no tokens, bedrock": (CONVERSE, converse(max_tokens=0), 400, "maxTokens"),
    "path": ("/v2/chat", chat(), 404, "POST /v2/chat"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_request(demo: Deployment, case: str):
    """The HTTP status blames the client, the message says what for, and the next request is served."""
    path, body, status, words = REQUESTS[case]
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = demo.post(path, **content)
    assert response.status_code == status
    answer = response.json()
    message = answer["error"]["message"] if "error" in answer else answer["message"]
    assert words in message
    assert "Traceback" not in message
    assert demo.post(CHAT, json=chat()).status_code == 200
    demo.wait_idle()


@pytest.mark.parametrize("path", [CHAT, CONVERSE])
def test_forced_route(demo: Deployment, path: str):
    """A route that does not exist is named as such."""
    body = chat() if path == CHAT else converse()
    response = demo.post(path, json=body, headers={"x-twinfer-route": "sideways"})
    assert response.status_code == 400
    assert "x-twinfer-route must be aggregated or disaggregated" in response.text


@pytest.fixture(scope="module")
def small(place: Path) -> Iterator[Deployment]:
    """Pools that hold fewer tokens than the model's context."""
    with serving(place / "small", EMULATED, "pool.prefill.kv_mib=1", "pool.decode.kv_mib=1") as deployment:
        yield deployment


@pytest.mark.parametrize("route", ["aggregated", "disaggregated"])
def test_longer_than_the_pool(small: Deployment, route: str):
    """A prompt within the model's context that no worker could ever hold is the client's error too."""
    body = chat(model=EMULATED_ID, messages=[{"role": "user", "content": LONG}])
    response = small.post(CHAT, json=body, headers={"x-twinfer-route": route})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    small.wait_idle()


def refused(*arguments: str, place: Path) -> str:
    """What ``twinfer`` says before it ends with exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "twinfer", *arguments],
        env={"PATH": "", "TMPDIR": str(place), "HOME": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert sorted(place.glob("twinfer-*")) == []
    [said] = [line for line in done.stderr.splitlines() if line.startswith("twinfer: ")]
    assert done.stderr.splitlines()[-1] == said
    return said


COMMANDS = {
    "no checkpoint": (["serve", "./nowhere"], "'./nowhere' is neither 'demo', nor a directory"),
    "unknown key": (["serve", "--set", "gateway.prot=1"], "unknown key 'gateway.prot'.*did you mean 'port'"),
    "wrong type": (["serve", "--set", "gateway.port=high"], "gateway.port"),
    "no file": (["serve", "--config", "nowhere.toml"], "cannot read the configuration 'nowhere.toml'"),
    "open to others": (["serve", "--host", "0.0.0.0"], "'0.0.0.0' is reachable by others"),
    "no such host": (["serve", "--host", "no.such.host.invalid"], "'no.such.host.invalid' is not an address"),
    "no such pool": (["worker", "--pool", "nobody", "--listen", "127.0.0.1:0"], "no pool 'nobody'"),
    "no key": (["worker", "--pool", "prefill", "--listen", "127.0.0.1:0"], "TWINFER_CLUSTER_KEY is missing"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_command(place: Path, case: str):
    """The command line says what is wrong, and ends with code 2 before anything was started."""
    arguments, words = COMMANDS[case]
    assert re.search(words, refused(*arguments, place=place))


def test_half_a_checkpoint(place: Path):
    """A file whose copying broke off is found out before it is served."""
    copy = place / "half"
    shutil.copytree(locate("demo"), copy)
    weights = copy / "model.safetensors"
    with weights.open("rb+") as file:
        file.truncate(weights.stat().st_size // 2)
    said = refused("serve", str(copy), "--port", "0", place=place)
    assert "model.safetensors" in said
    assert "copy or download it again" in said


def test_port_in_use(demo: Deployment, place: Path):
    """A second server on the same port ends at once; the first one goes on serving."""
    port = demo.url.rpartition(":")[2]
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in refused("serve", "--port", port, place=place)
    assert demo.post(CHAT, json=chat()).status_code == 200
