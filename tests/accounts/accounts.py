"""What responses, ledger and quotas say, side by side."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.accounts.clients import Told
from tests.accounts.kills import Plan
from twinfer.usage.ledger import total
from twinfer.usage.record import Tokens

PRICES = "[[price]]\ninput = 0.15\noutput = 0.6\ncache_write = 0.1875\n"


@dataclass(frozen=True, slots=True)
class Accounts:
    """All accounts of a deployment that has ended.

    Attributes:
        rows: of the ledger.
        charged, held: tokens of each tenant's quotas that were used, and that are still reserved.
        left: entries of the day book that nobody has written to the ledger.
    """

    told: Told
    rows: Sequence[dict[str, Any]]
    charged: dict[str, int]
    held: dict[str, int]
    left: int

    @property
    def tenants(self) -> list[str]:
        """Whoever asked."""
        return sorted({row["tenant"] for row in self.rows} | self.charged.keys())

    def told_to(self, tenant: str) -> int:
        """Tokens that count, by whole responses."""
        ids = {row["request_id"] for row in self.rows if row["tenant"] == tenant}
        return sum(tokens.charged for request_id, tokens in self.told.complete.items() if request_id in ids)

    def in_ledger(self, tenant: str, *, told: bool) -> int:
        """Tokens that count, by the ledger: of whole responses, or of what was left, broken or failed."""
        return total(
            [row for row in self.rows if row["tenant"] == tenant and (row["request_id"] in self.told.complete) == told]
        ).charged

    def differences(self) -> Iterator[str]:
        """Where they do not say the same."""
        told, by_id = self.told, {row["request_id"]: row for row in self.rows}
        for request_id, tokens in told.complete.items():
            row = by_id.get(request_id)
            if row is None:
                yield f"{request_id} was answered and is not in the ledger"
            elif row["status"] != "answered" or total([row]) != tokens:
                yield f"{request_id} was told {tokens}, and the ledger has {row}"
        yield from (f"{request_id} began and is not in the ledger" for request_id in told.started - by_id.keys())
        untold = [row for row in self.rows if row["status"] == "answered" and row["request_id"] not in told.complete]
        if len(untold) > told.left + told.refused:
            yield f"{len(untold)} answered records belong to no response, and only {told.left} clients left"
        for tenant in self.tenants:
            in_ledger = self.in_ledger(tenant, told=True) + self.in_ledger(tenant, told=False)
            if in_ledger != self.charged.get(tenant, 0):
                yield f"{tenant} was charged {self.charged.get(tenant, 0)}, and the ledger has {in_ledger}"
        yield from (f"{tenant}'s quota still holds {held}" for tenant, held in self.held.items() if held)
        if self.left:
            yield f"{self.left} entries of the day book never came to the ledger"
        for row in self.rows:
            if row["cost_nano"] != _cost_nano(total([row])):
                yield f"{row['request_id']} cost {row['cost_nano']}"


def table(plan: Plan, killed: Sequence[str], accounts: Accounts, seconds: float) -> str:
    """What happened, and what it cost by each account, in tokens that count against quotas."""
    told, kinds = accounts.told, Counter(killed)
    statuses = Counter(row["status"] for row in accounts.rows)
    counts = [
        ("questions", told.questions),
        ("whole responses", len(told.complete)),
        ("left by their clients", told.left),
        ("refused or broken, and asked again", told.refused),
        ("workers killed", kinds["worker"]),
        ("gateways killed", kinds["gateway"]),
        ("recoveries", sum(row["recoveries"] for row in accounts.rows)),
        ("records", len(accounts.rows)),
        *((f"  {status}", count) for status, count in sorted(statuses.items())),
    ]
    heads = ("tenant", "responses", "ledger of these", "+ of others", "= ledger", "quota", "difference")
    lines = [f"seed {plan.seed}, {seconds:.0f} s", *(f"{name:<36}{count:>8}" for name, count in counts), ""]
    lines.append("".join(f"{head:>17}" for head in heads))
    for tenant in accounts.tenants:
        responses, quota = accounts.told_to(tenant), accounts.charged.get(tenant, 0)
        known, others = (accounts.in_ledger(tenant, told=each) for each in (True, False))
        difference = abs(responses - known) + abs(known + others - quota)
        numbers = (responses, known, others, known + others, quota, difference)
        lines.append(f"{tenant:>17}" + "".join(f"{number:>17}" for number in numbers))
    return "\n".join(lines)


def _cost_nano(tokens: Tokens) -> int:
    """By the prices above, in halves so that it is whole before it is rounded up."""
    halves = 300 * tokens.input + 1200 * tokens.output + 375 * tokens.cache_write
    return (halves + 1) // 2
