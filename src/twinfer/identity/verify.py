"""From a request's claim to a principal. Pure: time, keys and terms are arguments.

``claim_of`` reads what a request says of itself before its body is read, and refuses what cannot be right whoever sent
it. ``Verifier.principal`` then does the same work for a key that exists and for one that does not.
"""

import hmac
from dataclasses import dataclass
from typing import TypeAlias

from twinfer.identity.bearer import SHORT_TERM_PREFIX, ShortTermKey, read_short_term
from twinfer.identity.keyring import Keyring
from twinfer.identity.principal import Principal
from twinfer.identity.refusals import (
    ExpiredToken,
    IncompleteSignature,
    InvalidBearer,
    InvalidSignature,
    MissingToken,
    UnrecognizedClient,
)
from twinfer.identity.sigv4 import MISMATCH, Head, Signature, matches, payload_hash, read_signature, skew_refusal

SERVICES = ("bedrock", "bedrock-mantle")
_MAX_BEARER = 8192


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator accepts.

    Attributes:
        region: the gateway's own, for which short-term keys are good.
        regions: of signatures and short-term keys; empty takes signatures of any, and short-term keys of ``region``.
        skew_s: between a client's clock and ours, at most.
        allow_unsigned: whether a signature may leave the body out.
    """

    region: str = "us-east-1"
    regions: tuple[str, ...] = ()
    skew_s: float = 300.0
    allow_unsigned: bool = False


@dataclass(frozen=True, slots=True)
class LongTermKey:
    """A bearer key that only the database knows."""

    token: str


Claim: TypeAlias = Signature | ShortTermKey | LongTermKey


def claim_of(head: Head, terms: Terms, now: float) -> Claim:
    """What a request says of itself, where that could be right at ``now`` (Unix seconds).

    Raises:
        Unauthenticated: which subclass says why.
    """
    authorization = head.header("authorization")
    if not authorization:
        raise MissingToken
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return _bearer_claim(token.strip(), terms)
    signature = read_signature(head)
    scope = signature.scope
    if scope.service not in SERVICES:
        raise InvalidSignature(f"Credential should be scoped to correct service: '{SERVICES[0]}'.")
    if terms.regions and scope.region not in terms.regions:
        raise InvalidSignature(f"Credential should be scoped to a valid Region, not '{scope.region[:32]}'.")
    if refusal := skew_refusal(signature.signed_s, now, terms.skew_s):
        raise InvalidSignature(refusal)
    return signature


def _bearer_claim(token: str, terms: Terms) -> Claim:
    if not token or len(token) > _MAX_BEARER:
        raise InvalidBearer
    if not token.startswith(SHORT_TERM_PREFIX):
        return LongTermKey(token)
    try:
        claim = read_short_term(token)
    except IncompleteSignature:
        raise InvalidBearer from None
    if claim.scope.service not in SERVICES or claim.scope.region not in (terms.regions or (terms.region,)):
        raise InvalidBearer
    return claim


@dataclass(frozen=True, slots=True)
class Verifier:
    """Verifies claims against one state of the keys."""

    keys: Keyring
    terms: Terms

    def principal(self, claim: Claim, head: Head, body: bytes, now: float) -> Principal:
        """Who sent this request, proven, at ``now`` in Unix seconds.

        Raises:
            Unauthenticated: which subclass says why.
        """
        match claim:
            case Signature():
                return self._signed(claim, head, body, now)
            case ShortTermKey():
                return self._short_term(claim, now)
            case LongTermKey(token):
                credential = self.keys.by_bearer(token)
                if credential is None:
                    raise InvalidBearer
                if credential.expired(now):
                    raise ExpiredToken
                return credential.principal

    def _signed(self, claim: Signature, head: Head, body: bytes, now: float) -> Principal:
        body_hash = payload_hash(head, body, allow_unsigned=self.terms.allow_unsigned)
        credential, key = self.keys.signer(claim.scope)
        signed = matches(claim, head, body_hash, key)
        session = self.keys.session_digest(claim.session_token)
        if credential is None or not hmac.compare_digest(session, credential.session_digest):
            raise UnrecognizedClient
        if not signed:
            raise InvalidSignature(MISMATCH)
        if credential.expired(now):
            raise ExpiredToken
        return credential.principal

    def _short_term(self, claim: ShortTermKey, now: float) -> Principal:
        credential, key = self.keys.signer(claim.scope)
        signed = hmac.compare_digest(claim.signature(key), claim.value)
        session = self.keys.session_digest(claim.session_token)
        if credential is None or not hmac.compare_digest(session, credential.session_digest) or not signed:
            raise InvalidBearer
        if now >= claim.ends_s or credential.expired(now):
            raise ExpiredToken
        if claim.begins_s - now > self.terms.skew_s:
            raise InvalidBearer
        return credential.principal
