"""AWS Signature Version 4 of one request, as its documentation describes it, for services that encode paths twice."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "bedrock"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys of an AWS account and the region they are used in.

    Attributes:
        token: of a session; "" without one.
    """

    access_key: str
    secret_key: str
    region: str
    token: str = ""


def signed(
    credentials: Credentials, path: str, headers: Mapping[str, str], body: bytes, now: datetime
) -> dict[str, str]:
    """The headers of a POST with its signature.

    Args:
        path: as it goes over the wire, without a query.
        headers: those to sign, ``host`` among them, names in lower case.
        now: in UTC.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {**headers, "x-amz-date": stamp}
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(headers))
    canonical_headers = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
    canonical = "\n".join(
        ("POST", quote(path, safe="/-_.~"), "", canonical_headers, names, hashlib.sha256(body).hexdigest())
    )
    scope = f"{stamp[:8]}/{credentials.region}/{SERVICE}/aws4_request"
    to_sign = "\n".join((ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = _key(credentials.secret_key, stamp[:8], credentials.region)
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers


@lru_cache(maxsize=4)
def _key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, SERVICE, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
