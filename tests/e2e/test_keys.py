"""A whole deployment whose endpoint asks for keys: from open to closed, with tenants that share nothing."""

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.deployment import Deployment, eventually, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID
from tests.e2e.processes import module_of

LONG = "Tell me about the sea and everything that lives in it. " * 20


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Not there yet."""
    return f"sqlite:///{tmp_path_factory.mktemp('keys')}/keys.db"


@pytest.fixture(scope="module")
def deployment(place: Path, database: str) -> Iterator[Deployment]:
    """Over emulated workers."""
    with serving(place, EMULATED, f"identity.database={database}", "identity.refresh_s=0.05") as deployment:
        yield deployment


def make_key(database: str, tenant: str, *more: str) -> dict[str, Any]:
    """As an operator makes one, in another process."""
    command = [sys.executable, "-m", "twinfer", "keys", "create", "--tenant", tenant, "--json", *more]
    done = subprocess.run([*command, "--set", f"identity.database={database}"], capture_output=True, check=True)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def ask(deployment: Deployment, bearer: str = "", text: str = "hi") -> httpx.Response:
    """One Converse."""
    body = {"messages": [{"role": "user", "content": [{"text": text}]}], "inferenceConfig": {"maxTokens": 4}}
    headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
    path = f"{deployment.url}/model/{EMULATED_ID}/converse"
    return httpx.post(path, json=body, headers=headers, timeout=30, trust_env=False)


def test_from_open_to_closed_and_tenants_that_share_nothing(deployment: Deployment, database: str) -> None:
    """Open until the first key; the same tenant finds its prompt in the cache, another one does not."""
    deployment.output.wait_for("Open on loopback until the first key exists")
    assert ask(deployment).status_code == 200
    first, second, other = make_key(database, "acme"), make_key(database, "acme"), make_key(database, "umbrella")
    keys = [made["bearer_key"] for made in (first, second, other)]
    for key in keys:
        eventually(lambda key=key: ask(deployment, key).status_code == 200 or None, "the key is known")
    assert ask(deployment).status_code == 403
    reads = [ask(deployment, key, LONG).json()["usage"]["cacheReadInputTokens"] for key in (*keys, keys[2])]
    assert reads[0] == reads[2] == 0
    assert reads[1] == reads[3] > 0
    revoke = [sys.executable, "-m", "twinfer", "keys", "revoke", first["access_key_id"]]
    subprocess.run([*revoke, "--set", f"identity.database={database}"], capture_output=True, check=True)
    eventually(lambda: ask(deployment, keys[0]).status_code == 403 or None, "the key is revoked")
    assert ask(deployment, keys[1]).status_code == 200


def test_a_gateway_that_died_asks_for_keys_again(deployment: Deployment, database: str) -> None:
    """It reads them before it serves."""
    key = make_key(database, "acme")["bearer_key"]
    said = deployment.kill("gateway")
    deployment.output.wait_for("gateway: ready", said)
    assert ask(deployment).status_code == 403
    assert ask(deployment, key).status_code == 200


def test_open_addresses_need_a_key_and_workers_see_no_database(place: Path, tmp_path: Path) -> None:
    """Without a key an open address is refused; with one it serves, and TLS is shown in the address."""
    database, key = f"sqlite:///{tmp_path}/keys.db", "ab" * 32
    settings = ["--set", f"identity.database={database}", "--host", "0.0.0.0", "--port", "0"]
    config = tmp_path / "open.toml"
    config.write_text(EMULATED)
    command = [sys.executable, "-m", "twinfer", "serve", "--config", str(config), *settings]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 2
    assert "make a key first with `twinfer keys create --tenant NAME`" in refused.stderr
    endpoint = tmp_path / "endpoint"
    subprocess.run([sys.executable, "-m", "twinfer", "certs", str(endpoint), "--endpoint"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWINFER_DATABASE_KEY", key)
        bearer = make_key(database, "acme")["bearer_key"]
        tls = [f"gateway.tls_{name}={endpoint}/{name}.pem" for name in ("cert", "key")]
        more = [f"identity.database={database}", "gateway.host=0.0.0.0", *tls]
        with serving(place / "open", EMULATED, *more) as deployment:
            deployment.output.wait_for("Every request needs a key")
            port = deployment.url.rpartition(":")[2]
            answer = httpx.get(
                f"https://localhost:{port}/v1/models",
                headers={"authorization": f"Bearer {bearer}"},
                verify=_trust(endpoint),
                trust_env=False,
            )
            assert answer.status_code == 200
            for pid in deployment.children:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                assert (key.encode() in environment) == (module_of(pid) == "twinfer.gateway")
    assert os.environ.get("TWINFER_DATABASE_KEY") is None


def _trust(endpoint: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(endpoint / "ca.pem"))
