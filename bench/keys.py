"""A key for the benchmarks, how a client shows it, and a gateway's door that knows it."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench.gateway_client import HOST
from twinfer.core.clock import MonotonicClock
from twinfer.core.config import Config
from twinfer.core.ids import TenantId
from twinfer.gateway.auth import GuardedDoor, terms_of
from twinfer.identity.credential import Credential, digest
from twinfer.identity.keyring import Keyring
from twinfer.identity.policy import Policy
from twinfer.identity.principal import Principal

Prove: TypeAlias = Callable[[str, bytes], Mapping[str, str]]

KEY_ID, SECRET, BEARER = "AKIABENCHBENCHBENCH1", "s" * 40, "ABSK" + "b" * 100
OTHERS = 1000
"""Keys that the gateway knows besides."""
_PEPPER = b"p" * 32


def keyring() -> Keyring:
    """The key, among others."""
    own = Credential(Principal(TenantId("bench"), KEY_ID, Policy()), SECRET, bearer_digest=digest(_PEPPER, BEARER))
    others = [
        Credential(Principal(TenantId("other"), f"AKIAOTHER{number:011}", Policy()), f"{number:040}")
        for number in range(OTHERS)
    ]
    return Keyring([own, *others], _PEPPER)


def guarded_door() -> GuardedDoor:
    """Asks for keys, and keeps no database."""
    door = GuardedDoor(terms_of(Config()), shut=True, max_stale_s=float("inf"), clock=MonotonicClock())
    door.renew(keyring(), any_ever=True)
    return door


def signed(path: str, body: bytes) -> Mapping[str, str]:
    """botocore's headers for a POST; good for five minutes."""
    request = AWSRequest("POST", f"http://{HOST}{path}", {"Content-Type": "application/json"}, body)
    SigV4Auth(Credentials(KEY_ID, SECRET), "bedrock", "us-east-1").add_auth(request)
    return {name: value for name, value in request.headers.items() if name != "Content-Type"}


def bearer(path: str, body: bytes) -> Mapping[str, str]:
    """The bearer key's header."""
    return {"Authorization": f"Bearer {BEARER}"}


PROOFS: Mapping[str, Prove] = {"signed": signed, "with accounts": signed, "bearer": bearer}
"""By the name of the row that uses it."""
