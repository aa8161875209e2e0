"""``twinfer keys``: makes, lists and revokes what clients prove themselves with."""

import argparse
import dataclasses
import re
import sys
import time
from typing import Any

import msgspec

from twinfer.cli.configuration import load_config
from twinfer.core.errors import ConfigError
from twinfer.core.ids import TenantId
from twinfer.identity.credential import Issued, issue
from twinfer.identity.place import place_of
from twinfer.identity.policy import Policy
from twinfer.identity.store import KeyRecord, KeyStore

TEMPORARY_S = 43_200.0
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_LIFETIME = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_CREATED = """\
key of tenant {tenant}, shown this once:

  AWS_ACCESS_KEY_ID={key_id}
  AWS_SECRET_ACCESS_KEY={secret}
  {other}

A running gateway takes it within {refresh_s:g} s.
"""


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked."""
    config = load_config(arguments)
    store = KeyStore(place_of(config.identity))
    match arguments.action:
        case "create":
            return _create(arguments, store, config.identity.refresh_s)
        case "list":
            return _list(arguments, store)
        case _:
            return _revoke(arguments, store)


def _create(arguments: argparse.Namespace, store: KeyStore, refresh_s: float) -> int:
    if not _TENANT.fullmatch(arguments.tenant):
        raise ConfigError(
            f"--tenant {arguments.tenant!r}: write at most 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first"
        )
    lifetime_s = _lifetime(arguments.expires) if arguments.expires else None
    if arguments.temporary:
        lifetime_s = TEMPORARY_S if lifetime_s is None else lifetime_s
    now = time.time()
    issued = issue(temporary=arguments.temporary)
    record = KeyRecord(
        key_id=issued.key_id,
        tenant=TenantId(arguments.tenant),
        policy=Policy.parse(arguments.allow, arguments.deny),
        created_s=now,
        expires_s=None if lifetime_s is None else now + lifetime_s,
        temporary=arguments.temporary,
        note=arguments.note,
    )
    store.create(record, issued)
    if arguments.json:
        _print_json(_shown(record) | _secrets(issued))
        return 0
    other = (
        f"AWS_BEARER_TOKEN_BEDROCK={issued.bearer}" if issued.bearer else f"AWS_SESSION_TOKEN={issued.session_token}"
    )
    print(
        _CREATED.format(
            tenant=record.tenant, key_id=issued.key_id, secret=issued.secret, other=other, refresh_s=refresh_s
        ),
        end="",
    )
    return 0


def _list(arguments: argparse.Namespace, store: KeyStore) -> int:
    records = [record for record in store.list() if arguments.tenant in (None, record.tenant)]
    if arguments.json:
        _print_json([_shown(record) for record in records])
        return 0
    if not records:
        print("no keys; make one with: twinfer keys create --tenant NAME", file=sys.stderr)
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for column in ("key", "tenant", "state", "created", "allowed", "denied", "note"):
        table.add_column(column, overflow="fold")
    now = time.time()
    for record in records:
        allow, deny = (" ".join(map(str, rules)) for rules in (record.policy.allow, record.policy.deny))
        created = _moment(record.created_s)
        table.add_row(record.key_id, record.tenant, _state(record, now), created, allow, deny, record.note)
    Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False).print(table)
    return 0


def _revoke(arguments: argparse.Namespace, store: KeyStore) -> int:
    if not store.revoke(arguments.key, time.time()):
        raise ConfigError(f"there is no key {arguments.key!r} that is not revoked already; see: twinfer keys list")
    if arguments.json:
        _print_json({"access_key_id": arguments.key, "revoked": True})
    else:
        print(f"revoked {arguments.key}; running gateways refuse it within seconds")
    return 0


def _shown(record: KeyRecord) -> dict[str, Any]:
    """A key as JSON has it, without its secrets."""
    return {
        "access_key_id": record.key_id,
        "tenant": record.tenant,
        "allow": [str(rule) for rule in record.policy.allow],
        "deny": [str(rule) for rule in record.policy.deny],
        "created": _moment(record.created_s),
        "expires": None if record.expires_s is None else _moment(record.expires_s),
        "revoked": None if record.revoked_s is None else _moment(record.revoked_s),
        "temporary": record.temporary,
        "note": record.note,
    }


def _secrets(issued: Issued) -> dict[str, str]:
    names = {"secret": "secret_access_key", "bearer": "bearer_key", "session_token": "session_token"}
    found = dataclasses.asdict(issued)
    return {name: found[field] for field, name in names.items() if found[field]}


def _state(record: KeyRecord, now: float) -> str:
    if record.revoked_s is not None:
        return f"revoked {_moment(record.revoked_s)}"
    if record.expires_s is None:
        return "valid"
    return f"{'expired' if now >= record.expires_s else 'valid until'} {_moment(record.expires_s)}"


def _lifetime(text: str) -> float:
    """Seconds of ``90d``, ``12h``, ``30m`` or ``45s``."""
    found = _LIFETIME.fullmatch(text)
    if found is None or found[1].strip("0") == "":
        raise ConfigError(f"--expires {text!r}: write a number and s, m, h or d, such as 90d or 12h")
    return float(found[1]) * _UNIT_S[found[2]]


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _print_json(value: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(value)).decode())
