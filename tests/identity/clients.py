"""Requests as AWS's own code signs them: botocore, and the recipe of its generator of short-term keys."""

import base64
import datetime
from collections.abc import Mapping
from typing import Any
from unittest import mock
from urllib.parse import urlencode

from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from twinfer.core.ids import TenantId
from twinfer.identity.credential import Credential
from twinfer.identity.keyring import Keyring
from twinfer.identity.policy import Policy
from twinfer.identity.principal import Principal
from twinfer.identity.sigv4 import Head, parse_moment

KEY_ID = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
HOST = "127.0.0.1:8000"
MOMENT = "20260102T030405Z"
NOW = float(parse_moment(MOMENT) or 0)
PEPPER = b"p" * 32
CONVERSE = "/model/meta.llama3-1-8b-instruct-v1%3A0/converse"
BODY = b'{"messages":[{"role":"user","content":[{"text":"hi"}]}]}'


def credential(key_id: str = KEY_ID, **details: Any) -> Credential:
    """The example key, and more about it."""
    return Credential(Principal(TenantId("acme"), key_id, Policy()), SECRET, **details)


def keyring(*credentials: Credential) -> Keyring:
    """These keys, or the example key."""
    return Keyring(credentials or (credential(),), PEPPER)


def head(headers: Mapping[str, str], path: str = CONVERSE, query: str = "") -> Head:
    """A POST as it comes over the wire."""
    return Head("POST", path, query, {name.lower(): [value] for name, value in headers.items()})


def signed(path: str = CONVERSE, body: bytes = BODY, **options: str) -> dict[str, str]:
    """Headers with botocore's signature; ``options`` are ``service``, ``region``, ``token``, ``moment`` or headers."""
    moment = options.pop("moment", MOMENT)
    service, region = options.pop("service", "bedrock"), options.pop("region", "us-east-1")
    credentials = Credentials(KEY_ID, SECRET, options.pop("token", None))
    query = options.pop("query", "")
    extra = {name.replace("_", "-"): value for name, value in options.items()}
    request = AWSRequest(
        "POST",
        f"http://{HOST}{path}{'?' + query if query else ''}",
        {"content-type": "application/json", **extra},
        body,
    )
    with at(moment):
        SigV4Auth(credentials, service, region).add_auth(request)
    return {"host": HOST, **dict(request.headers.items())}


def short_term_key(
    region: str = "us-east-1", expires_s: int = 43_200, token: str | None = None, secret: str = SECRET
) -> str:
    """A short-term key as ``aws-bedrock-token-generator`` makes it."""
    request = AWSRequest(
        "POST",
        "https://bedrock.amazonaws.com/",
        {"host": "bedrock.amazonaws.com"},
        params={"Action": "CallWithBearerToken"},
    )
    with at(MOMENT):
        SigV4QueryAuth(Credentials(KEY_ID, secret, token), "bedrock", region, expires_s).add_auth(request)
    url = f"{request.url.removeprefix('https://')}&{urlencode({'Version': '1'})}"
    return "bedrock-api-key-" + base64.b64encode(url.encode()).decode()


def at(moment: str) -> Any:
    """botocore believes that it is this moment."""
    now = datetime.datetime.strptime(moment, "%Y%m%dT%H%M%SZ")
    return mock.patch("botocore.auth.get_current_datetime", return_value=now)
