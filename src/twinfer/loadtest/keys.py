"""Keys for an endpoint, taken from the environment: a bearer key, or AWS credentials that sign each request."""

from collections.abc import Mapping
from datetime import UTC, datetime

from twinfer.core.errors import ConfigError
from twinfer.loadtest.ask import Sign
from twinfer.loadtest.sigv4 import Credentials, signed

BEARER = {"chat": "OPENAI_API_KEY", "completions": "OPENAI_API_KEY", "converse": "AWS_BEARER_TOKEN_BEDROCK"}
"""Where a dialect's clients look for a key."""
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


def signer(api: str, authority: str, environ: Mapping[str, str], key_variable: str | None) -> Sign:
    """What puts keys on requests.

    Args:
        api: chat, completions or converse.
        authority: of the endpoint.
        environ: the environment.
        key_variable: the variable that holds a bearer key; ``None`` takes the one that the dialect's clients take.

    Raises:
        ConfigError: the variable that was named is empty, or AWS credentials have no region.
    """
    key = environ.get(key_variable or BEARER[api], "")
    if key_variable is not None and not key:
        raise ConfigError(f"--key-env {key_variable}: this environment variable is not set")
    if key:
        authorization = f"Bearer {key.strip()}"
        return lambda path, headers, body: {**headers, "authorization": authorization}
    credentials = _credentials(environ) if api == "converse" else None
    if credentials is None:
        return lambda path, headers, body: headers

    def sign(path: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        found = signed(credentials, path, {**headers, "host": authority}, body, datetime.now(UTC))
        del found["host"]
        return found

    return sign


def _credentials(environ: Mapping[str, str]) -> Credentials | None:
    access, secret = environ.get("AWS_ACCESS_KEY_ID", ""), environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not access or not secret:
        return None
    region = next((environ[name] for name in REGIONS if environ.get(name)), "")
    if not region:
        raise ConfigError("AWS credentials are set without a region: set AWS_REGION")
    return Credentials(access, secret, region, environ.get("AWS_SESSION_TOKEN", ""))
