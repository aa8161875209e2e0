"""One deployment of real processes, whose quotas, ledger and responses must tell the same in the end."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.accounts.accounts import PRICES, Accounts, table
from tests.accounts.clients import SECRET, Crowd
from tests.accounts.kills import Plan, killing, watched
from tests.e2e.deployment import serving
from twinfer.core.config import IdentityConfig
from twinfer.core.ids import TenantId
from twinfer.identity.credential import Issued, issue
from twinfer.identity.place import place_of
from twinfer.identity.policy import Policy
from twinfer.identity.store import KeyRecord, KeyStore
from twinfer.usage.daybook import Daybook
from twinfer.usage.ledger import Filter, Ledger

MODEL = "twinfer.emulated-v1:0"
TENANTS = ("acme", "beta", "gamma")
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

[gateway]
count = 2
"""


def run(directory: Path, plan: Plan) -> list[str]:
    """Ask, leave, kill and come again; returns what does not add up, in words, and prints a table of what does."""
    database = f"sqlite:///{directory}/accounts.db"
    (directory / "prices.toml").write_text(PRICES)
    place = place_of(IdentityConfig(database=database), {})
    store = KeyStore(place)
    keys = [_key(store, tenant) for tenant in TENANTS]
    sets = (f"identity.database={database}", f"usage.prices={directory}/prices.toml", "handoff.lease_s=2.0")
    started = time.monotonic()
    with serving(directory, CONFIG, *sets, "handoff.heartbeat_s=0.5") as deployment:
        crowd = Crowd(deployment.url, MODEL, [key.bearer for key in keys], plan.seed)
        with watched(deployment), killing(deployment, plan) as killer:
            asyncio.run(crowd.ask(plan.requests, plan.clients, killer.has_enough))
    accounts = Accounts(crowd.told, list(Ledger(place).rows(Filter())), *_quotas(directory))
    print(table(plan, killer.killed, accounts, time.monotonic() - started))
    return [*accounts.differences(), *_leaks(deployment.output.text, keys)]


def _quotas(directory: Path) -> tuple[dict[str, int], dict[str, int], int]:
    """From the day book, when all gateways have ended: tokens charged to each tenant, those held, and entries left."""
    (path,) = directory.glob("usage-*.daybook")
    charged, held = Counter[str](), Counter[str]()
    with contextlib.closing(Daybook(path)) as daybook:
        for (tenant, _), standing in daybook.standings().items():
            charged[tenant] += standing.charged
            held[tenant] += standing.held
        return dict(charged), dict(held), daybook.count()


def _key(store: KeyStore, tenant: str, *allow: str) -> Issued:
    issued = issue()
    store.create(KeyRecord(issued.key_id, TenantId(tenant), Policy.parse(allow), time.time()), issued)
    return issued


def _leaks(said: str, keys: Sequence[Issued]) -> Iterator[str]:
    """Secrets and prompts in what the processes have logged."""
    for secret in (SECRET, *(key.bearer for key in keys), *(key.secret for key in keys)):
        if secret in said:
            yield f"the log has {secret!r}"
