"""Bedrock's API keys: long ones are looked up, short ones are a signed query in disguise and need no record."""

from dataclasses import dataclass
from urllib.parse import unquote

from twinfer.identity.credential import decoded
from twinfer.identity.refusals import InvalidBearer
from twinfer.identity.sigv4 import (
    ALGORITHM,
    EMPTY_HASH,
    CredentialScope,
    canonical_query,
    is_signature,
    parse_moment,
    sign,
)

SHORT_TERM_PREFIX = "bedrock-api-key-"
MAX_SHORT_TERM_S = 43_200
_HOST = "bedrock.amazonaws.com"
_ACTION = "CallWithBearerToken"


@dataclass(frozen=True, slots=True)
class ShortTermKey:
    """What a short-term key says.

    Attributes:
        canonical: the text that its maker signed.
        begins_s, ends_s: when it is valid, in Unix seconds.
        value: the signature in hexadecimal.
        session_token: empty where none is in it.
    """

    scope: CredentialScope
    canonical: str
    moment: str
    begins_s: int
    ends_s: int
    value: str
    session_token: str

    def signature(self, key: bytes) -> str:
        """What it would be, had the holder of this signing key made it."""
        return sign(key, self.moment, self.scope, self.canonical)


def read_short_term(token: str) -> ShortTermKey:
    """Take a short-term key apart: base64 of a presigned query.

    Raises:
        InvalidBearer: it is none.
    """
    raw = decoded(token.removeprefix(SHORT_TERM_PREFIX))
    host, separator, query = (raw or b"").decode("latin-1").partition("/?")
    if not separator or host.removeprefix("https://") != _HOST:
        raise InvalidBearer
    pairs = [part.partition("=") for part in query.split("&")]
    fields = {name: unquote(value) for name, _, value in pairs}
    if len(fields) != len(pairs) or fields.get("Action") != _ACTION or fields.get("X-Amz-Algorithm") != ALGORITHM:
        raise InvalidBearer
    scope = CredentialScope.parse(fields.get("X-Amz-Credential", ""))
    moment, lifetime = fields.get("X-Amz-Date", ""), fields.get("X-Amz-Expires", "")
    begins_s = parse_moment(moment)
    if begins_s is None or moment[:8] != scope.date or fields.get("X-Amz-SignedHeaders") != "host":
        raise InvalidBearer
    if not (
        lifetime.isascii() and lifetime.isdecimal() and len(lifetime) <= 5 and 0 < int(lifetime) <= MAX_SHORT_TERM_S
    ):
        raise InvalidBearer
    value = fields.get("X-Amz-Signature", "")
    if not is_signature(value):
        raise InvalidBearer
    signed = "&".join("".join(pair) for pair in pairs if pair[0] not in ("X-Amz-Signature", "Version"))
    return ShortTermKey(
        scope,
        f"POST\n/\n{canonical_query(signed)}\nhost:{_HOST}\n\nhost\n{EMPTY_HASH}",
        moment,
        begins_s,
        begins_s + int(lifetime),
        value,
        fields.get("X-Amz-Security-Token", ""),
    )
