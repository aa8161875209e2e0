"""Who a request is from, once that is settled: what quotas and accounts go by."""

from dataclasses import dataclass

from twinfer.core.ids import TenantId
from twinfer.identity.policy import Policy, Rule


@dataclass(frozen=True, slots=True)
class Principal:
    """An identity that was proven, or anybody where a server on loopback is open.

    Attributes:
        tenant: the account; salts every block hash, so that tenants share no KV.
        key_id: the access key's id; empty for anybody.
    """

    tenant: TenantId
    key_id: str
    policy: Policy


ANYBODY = Principal(TenantId("default"), "", Policy((Rule("*"),)))
"""Whoever asks a server that is open on loopback."""
