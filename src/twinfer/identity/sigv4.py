"""AWS Signature Version 4, the verifier's half, as pure functions.

A canonical text is made of the request as it came over the wire and compared by its signature:

1. ``read_signature`` takes the ``Authorization`` header apart. No secret is involved: whatever is wrong may be said.
2. ``payload_hash`` digests the body, or believes a hash that was signed once it proved to be the body's.
3. ``matches`` makes the canonical text with that and compares signatures in constant time.

Source: AWS's reference on SigV4; the request's path is encoded again as it came, never decoded first.
"""

import calendar
import datetime
import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from twinfer.identity.refusals import IncompleteSignature, InvalidSignature

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
HOST, AUTHORITY = "host", ":authority"
"""What HTTP/2 has instead of the header; servers hand it on as that, and clients in JavaScript sign it as it went."""
EMPTY_HASH = hashlib.sha256(b"").hexdigest()
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)

_UNRESERVED = "/-_.~"
_MOMENT = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_DATE = re.compile(r"\d{8}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}")
_HEADER_NAMES = re.compile(r"[!-:<-~]+(;[!-:<-~]+)*")
_MUST_BE_SIGNED = ("x-amz-", "x-amzn-bedrock-")


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body, as it came over the wire.

    Attributes:
        path: raw, still percent-encoded.
        query: raw, without the question mark.
        headers: names in lower case; several values of one name in the order in which they came.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, method: str, path: str, query: bytes, headers: Sequence[tuple[bytes, bytes]]) -> "Head":
        """From an ASGI scope's parts."""
        found: dict[str, list[str]] = {}
        for name, value in headers:
            found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        return cls(method, path, query.decode("latin-1"), found)

    def header(self, name: str) -> str:
        """A header that must not be there twice; empty where it is not there.

        Raises:
            IncompleteSignature: it is there twice, and one could be signed while the other is obeyed.
        """
        values = self.headers.get(name, ())
        if len(values) > 1:
            raise IncompleteSignature(f"The header {name} is there {len(values)} times; send it once.")
        return values[0] if values else ""


@dataclass(frozen=True, slots=True)
class CredentialScope:
    """Whose key, and what it was derived for."""

    key_id: str
    date: str
    region: str
    service: str

    @classmethod
    def parse(cls, text: str) -> "CredentialScope":
        """Read ``AKID/yyyymmdd/region/service/aws4_request``.

        Raises:
            IncompleteSignature: it has other parts.
        """
        parts = text.split("/")
        if len(parts) != 5 or not all(parts) or parts[4] != TERMINATOR or not _DATE.fullmatch(parts[1]):
            raise IncompleteSignature(
                "Credential must have the form 'access key id/yyyymmdd/region/service/aws4_request'."
            )
        return cls(*parts[:4])

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/{TERMINATOR}"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a request claims.

    Attributes:
        signed_headers: names in lower case, as listed.
        moment: of signing, such as ``20260102T030405Z``.
        signed_s: the same in Unix seconds.
        value: the signature in hexadecimal.
        session_token: empty where none came.
    """

    scope: CredentialScope
    signed_headers: tuple[str, ...]
    moment: str
    signed_s: int
    value: str
    session_token: str


def read_signature(head: Head) -> Signature:
    """Take the ``Authorization`` header apart.

    Raises:
        IncompleteSignature: a part is missing or malformed.
        InvalidSignature: a header that must be signed is not.
    """
    fields = _fields(head.header("authorization"))
    scope = CredentialScope.parse(fields["Credential"])
    if not is_signature(fields["Signature"]):
        raise IncompleteSignature("Signature must be 64 lower-case hexadecimal digits.")
    if not _HEADER_NAMES.fullmatch(fields["SignedHeaders"]):
        raise IncompleteSignature("SignedHeaders must be names of headers, separated by ';'.")
    signed = tuple(name.lower() for name in fields["SignedHeaders"].split(";"))
    dated = "x-amz-date" if "x-amz-date" in head.headers else "date"
    moment, signed_s = _moment(head.header(dated))
    if moment[:8] != scope.date:
        raise InvalidSignature(f"Date in Credential scope does not match YYYYMMDD from {dated}: {moment}")
    host = AUTHORITY if AUTHORITY in signed else HOST
    for name in (host, dated, *(name for name in head.headers if name.startswith(_MUST_BE_SIGNED))):
        if name not in signed:
            raise InvalidSignature(f"The header {name} is not signed; list it in SignedHeaders.")
    return Signature(scope, signed, moment, signed_s, fields["Signature"], head.header("x-amz-security-token"))


def payload_hash(head: Head, body: bytes, *, allow_unsigned: bool) -> str:
    """What stands for the body in the canonical text.

    Raises:
        InvalidSignature: it is not what the client says, or the client says in a way that is not accepted.
    """
    declared = head.header("x-amz-content-sha256")
    if declared == UNSIGNED_PAYLOAD and allow_unsigned:
        return declared
    actual = hashlib.sha256(body).hexdigest()
    if declared and declared != actual:
        if declared == UNSIGNED_PAYLOAD:
            raise InvalidSignature("Unsigned payloads are not accepted here; sign the body's SHA-256.")
        if declared.startswith("STREAMING-"):
            raise InvalidSignature("Bodies signed chunk by chunk are not accepted here; sign the body's SHA-256.")
        raise InvalidSignature("The provided 'x-amz-content-sha256' header does not match what was computed.")
    return actual


def matches(signature: Signature, head: Head, body_hash: str, key: bytes) -> bool:
    """Whether this key signed this request, with its path encoded twice as AWS's clients do, or once as some others."""
    digests = [sign(key, signature.moment, signature.scope, text) for text in _canonical(signature, head, body_hash)]
    return any([hmac.compare_digest(digest, signature.value) for digest in digests])


def sign(key: bytes, moment: str, scope: CredentialScope, canonical: str) -> str:
    """The signature of a canonical text, in hexadecimal."""
    hashed = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    return hmac.digest(key, f"{ALGORITHM}\n{moment}\n{scope}\n{hashed}".encode(), hashlib.sha256).hex()


def signing_key(secret: str, scope: CredentialScope) -> bytes:
    """The key derived from a secret for a day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in (scope.date, scope.region, scope.service, TERMINATOR):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    return key


def is_signature(text: str) -> bool:
    """Whether it has a signature's form."""
    return _HEX.fullmatch(text) is not None


def canonical_query(query: str) -> str:
    """A query sorted by name and then value, as they came."""
    pairs = [part.partition("=")[::2] for part in query.split("&") if part]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def parse_moment(text: str) -> int | None:
    """Unix seconds of ``20260102T030405Z``; nothing where it is no such moment."""
    if not _MOMENT.fullmatch(text):
        return None
    try:
        return int(datetime.datetime.fromisoformat(text).timestamp())
    except ValueError:
        return None


def skew_refusal(signed_s: float, now: float, allowed_s: float) -> str | None:
    """Why a signature of then is not one of now, in AWS's words; ``None`` when it is."""
    minutes = f"{allowed_s / 60:g} min."
    if now - signed_s > allowed_s:
        earliest, current = format_moment(now - allowed_s), format_moment(now)
        return f"Signature expired: {format_moment(signed_s)} is now earlier than {earliest} ({current} - {minutes})"
    if signed_s - now > allowed_s:
        latest, current = format_moment(now + allowed_s), format_moment(now)
        return (
            f"Signature not yet current: {format_moment(signed_s)} is still later than {latest} ({current} + {minutes})"
        )
    return None


def format_moment(seconds: float) -> str:
    """Unix seconds in the form of ``x-amz-date``."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def _fields(authorization: str) -> dict[str, str]:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise IncompleteSignature(f"Authorization must begin with {ALGORITHM} or Bearer.")
    fields: dict[str, str] = {}
    for part in rest.split(","):
        name, separator, value = part.strip().partition("=")
        if not separator or name in fields:
            raise IncompleteSignature(f"Authorization has a part that is malformed or there twice: {name[:32]!r}.")
        fields[name] = value
    missing = [name for name in ("Credential", "SignedHeaders", "Signature") if not fields.get(name)]
    if missing:
        raise IncompleteSignature(f"Authorization header requires {missing[0]!r} parameter.")
    return fields


def _moment(text: str) -> tuple[str, int]:
    seconds = parse_moment(text)
    if seconds is not None:
        return text, seconds
    try:
        seconds = calendar.timegm(parsedate_to_datetime(text).utctimetuple())
    except (ValueError, TypeError, IndexError, OverflowError):
        raise IncompleteSignature("Authorization header requires existence of a valid 'X-Amz-Date' header.") from None
    return format_moment(seconds), seconds


def _canonical(signature: Signature, head: Head, body_hash: str) -> tuple[str, str]:
    """The canonical text with the raw path encoded again, and with the raw path."""
    sent = head.headers
    signed = [(name, sent.get(HOST if name == AUTHORITY else name, ())) for name in signature.signed_headers]
    headers = "".join(f"{name}:{','.join(' '.join(value.split()) for value in values)}\n" for name, values in signed)
    rest = f"\n{canonical_query(head.query)}\n{headers}\n{';'.join(signature.signed_headers)}\n{body_hash}"
    return f"{head.method}\n{quote(head.path, safe=_UNRESERVED)}{rest}", f"{head.method}\n{head.path}{rest}"
