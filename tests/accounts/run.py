"""One deployment of real processes, whose quotas, ledger and responses must tell the same in the end."""

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.accounts.clients import SECRET, Crowd, Told
from tests.e2e.deployment import Deployment, eventually, serving
from twinfer.core.config import IdentityConfig
from twinfer.core.ids import TenantId
from twinfer.identity.credential import Issued, issue
from twinfer.identity.place import place_of
from twinfer.identity.policy import Policy
from twinfer.identity.store import KeyRecord, KeyStore
from twinfer.usage.ledger import Filter, Ledger, total
from twinfer.usage.record import Tokens

MODEL = "twinfer.emulated-v1:0"
TENANTS = ("acme", "beta", "gamma")
WORKERS = ("prefill-0", "prefill-1", "decode-0", "decode-1")
CONFIG = f"""
[[model]]
id = "{MODEL}"

[[pool]]
name = "prefill"
role = "prefill"
engine = "emulated"
workers = 2
kv_mib = 8
emulation = {{ prefill_tokens_per_s = 40000 }}

[[pool]]
name = "decode"
role = "decode"
engine = "emulated"
workers = 2
kv_mib = 8
emulation = {{ decode_step_ms = 1 }}

[[quota]]
tenant = "gamma"
tokens_per_min = 12_000

[[quota]]
tokens_per_min = 1_000_000_000
reserved_tokens_per_min = 2_000

[usage]
flush_s = 0.05
"""
PRICES = "[[price]]\ninput = 0.15\noutput = 0.6\ncache_write = 0.1875\n"


def run(directory: Path, num_requests: int, num_kills: int, seed: int, num_clients: int = 12) -> list[str]:
    """Ask, leave, kill and come again; returns what does not add up, in words, and prints what does."""
    database = f"sqlite:///{directory}/accounts.db"
    (directory / "prices.toml").write_text(PRICES)
    place = place_of(IdentityConfig(database=database), {})
    store = KeyStore(place)
    keys = [_key(store, tenant) for tenant in TENANTS]
    watcher = _key(store, "watcher", "twinfer:GetMetrics")
    sets = (f"identity.database={database}", f"usage.prices={directory}/prices.toml", "handoff.lease_s=2.0")
    started = time.monotonic()
    with serving(directory, CONFIG, *sets, "handoff.heartbeat_s=0.5") as deployment:
        crowd = Crowd(deployment.url, MODEL, [key.bearer for key in keys], seed)
        with _killing(deployment, num_kills, seed) as killed:
            asyncio.run(crowd.ask(num_requests, num_clients))
        charged = eventually(lambda: _settled(deployment.url, watcher.bearer), "all accounts to be closed")
    rows = list(Ledger(place).rows(Filter()))
    said = deployment.output.text
    findings = [*_differences(crowd.told, rows, charged), *_leaks(said, [*keys, watcher])]
    statuses, told = Counter(row["status"] for row in rows), crowd.told
    print(
        f"{num_requests} questions, {len(killed)} kills, {time.monotonic() - started:.0f} s: {len(rows)} records "
        f"({', '.join(f'{count} {status}' for status, count in sorted(statuses.items()))}), "
        f"{len(told.complete)} whole responses, {told.left} left, {told.refused} refused or broken; "
        f"{sum(row['recoveries'] for row in rows)} recoveries; {total(rows)}"
    )
    return findings


def _key(store: KeyStore, tenant: str, *allow: str) -> Issued:
    issued = issue()
    store.create(KeyRecord(issued.key_id, TenantId(tenant), Policy.parse(allow), time.time()), issued)
    return issued


@contextlib.contextmanager
def _killing(deployment: Deployment, num_kills: int, seed: int) -> Iterator[list[str]]:
    """Kill workers one after the other, while the context lasts; tells which."""
    killed = list[str]()
    stop, draw = threading.Event(), random.Random(seed)

    def kill() -> None:
        for _ in range(num_kills):
            if stop.wait(draw.uniform(0.2, 1.0)):
                return
            name = draw.choice(WORKERS)
            said = deployment.kill(name)
            killed.append(name)
            deployment.output.wait_for(rf"{name}: ready", said)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def _settled(url: str, key: str) -> dict[str, int] | None:
    """Tokens charged to each tenant's quota, once nothing runs and everything is written."""
    answer = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {key}"}, timeout=10)
    samples = [
        sample for family in text_string_to_metric_families(answer.raise_for_status().text) for sample in family.samples
    ]
    busy = {sample.name: sample.value for sample in samples}
    if busy["twinfer_gateway_in_work"] or busy["twinfer_usage_records_waiting"]:
        return None
    name = "bedrock_estimated_tpm_quota_usage_total"
    return {sample.labels["tenant"]: int(sample.value) for sample in samples if sample.name == name}


def _differences(told: Told, rows: Sequence[dict[str, Any]], charged: dict[str, int]) -> Iterator[str]:
    """Where responses, ledger and quotas do not say the same."""
    by_id = {row["request_id"]: row for row in rows}
    for request_id, tokens in told.complete.items():
        row = by_id.get(request_id)
        if row is None:
            yield f"{request_id} was answered and is not in the ledger"
        elif row["status"] != "answered" or total([row]) != tokens:
            yield f"{request_id} was told {tokens}, and the ledger has {row}"
    yield from (f"{request_id} began and is not in the ledger" for request_id in told.started - by_id.keys())
    untold = [row for row in rows if row["status"] == "answered" and row["request_id"] not in told.complete]
    if len(untold) > told.left + told.refused:
        yield f"{len(untold)} answered records belong to no response, and only {told.left} clients left"
    for tenant in {row["tenant"] for row in rows} | charged.keys():
        in_ledger = total([row for row in rows if row["tenant"] == tenant]).charged
        if in_ledger != charged.get(tenant, 0):
            yield f"{tenant} was charged {charged.get(tenant, 0)}, and the ledger has {in_ledger}"
    for row in rows:
        if row["cost_nano"] != _cost_nano(total([row])):
            yield f"{row['request_id']} cost {row['cost_nano']}"


def _cost_nano(tokens: Tokens) -> int:
    """By the prices above, in halves so that it is whole before it is rounded up."""
    halves = 300 * tokens.input + 1200 * tokens.output + 375 * tokens.cache_write
    return (halves + 1) // 2


def _leaks(said: str, keys: Sequence[Issued]) -> Iterator[str]:
    """Secrets and prompts in what the processes have logged."""
    for secret in (SECRET, *(key.bearer for key in keys), *(key.secret for key in keys)):
        if secret in said:
            yield f"the log has {secret!r}"
