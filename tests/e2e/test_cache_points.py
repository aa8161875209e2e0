"""Prompt caches of tenants, through whole deployments: the same one hits, another misses, and the accounts say so."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.deployment import Deployment, serving
from tests.e2e.emulated import EMULATED, EMULATED_ID
from twinfer.core.service import Tier

FAST = """
[[pool]]
name = "fast"
role = "decode"
engine = "emulated"
latency = "optimized"
kv_mib = 8
"""
LONG = "It was the best of times, it was the worst of times. " * 20


def keys_command(directory: Path, *arguments: str) -> Any:
    """What ``twinfer`` prints as JSON."""
    command = [sys.executable, "-m", "twinfer", *arguments, "--json", "--set", database(directory)]
    done = subprocess.run(command, check=True, capture_output=True, env=os.environ)
    return json.loads(done.stdout)


def database(directory: Path) -> str:
    """As ``--set`` takes it."""
    return f"identity.database=sqlite:///{directory}/shared.db"


class Tenants:
    """A deployment with a key for each of two tenants."""

    def __init__(self, deployment: Deployment, keys: dict[str, str]) -> None:
        self._deployment = deployment
        self._keys = keys

    def converse(self, tenant: str, text: str, **fields: Any) -> Any:
        """The answer to a long turn with a cache point, and what follows it."""
        content = [{"text": text}, {"cachePoint": {"type": "default"}}, {"text": "What now?"}]
        body = {"messages": [{"role": "user", "content": content}], "inferenceConfig": {"maxTokens": 4}, **fields}
        return httpx.post(
            f"{self._deployment.url}/model/{EMULATED_ID}/converse",
            json=body,
            headers={"authorization": f"Bearer {self._keys[tenant]}"},
            timeout=30,
        ).raise_for_status()


@pytest.fixture(scope="module")
def tenants(place: Path) -> Iterator[Tenants]:
    """One deployment for the module; afterwards its ledger has everything."""
    keys = {name: keys_command(place, "keys", "create", "--tenant", name)["bearer_key"] for name in ("acme", "beta")}
    with serving(place, EMULATED + FAST, database(place)) as deployment:
        yield Tenants(deployment, keys)
    rows = keys_command(place, "usage", "--by", "tenant")["rows"]
    assert [row["tenant"] for row in rows] == ["acme", "beta"]
    assert all(row["cache_write_tokens"] > 0 for row in rows)


@pytest.mark.parametrize("tier", [tier for tier in Tier if tier is not Tier.RESERVED])
def test_the_same_tenant_hits_and_another_misses(tenants: Tenants, tier: Tier) -> None:
    """In every tier; read, written and neither are always the whole prompt."""
    told = [
        tenants.converse(tenant, f"{tier} {LONG}", serviceTier={"type": tier}).json()
        for tenant in ("acme", "acme", "beta", "beta")
    ]
    assert {answer["serviceTier"]["type"] for answer in told} == {tier}
    usages = [answer["usage"] for answer in told]
    assert [usage["cacheReadInputTokens"] > 0 for usage in usages] == [False, True, False, True]
    assert [usage["cacheWriteInputTokens"] > 0 for usage in usages] == [True, False, True, False]
    names = ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    assert len({sum(usage[name] for name in names) for usage in usages}) == 1
    assert usages[1]["inputTokens"] < usages[0]["totalTokens"]


def test_low_latency_has_its_own_pool(tenants: Tenants) -> None:
    """And standard requests stay out of it."""
    for latency, pool in (("optimized", "fast"), ("standard", "decode")):
        answer = tenants.converse("acme", f"{latency} {LONG}", performanceConfig={"latency": latency}).json()
        assert answer["performanceConfig"] == {"latency": latency}
        assert answer["twinfer"]["decode_worker"] == f"{pool}-0"
