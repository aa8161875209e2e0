"""Claims and who proves them: signatures, long-term and short-term bearer keys, session tokens."""

import base64
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.identity.clients import (
    BODY,
    CONVERSE,
    KEY_ID,
    NOW,
    PEPPER,
    SECRET,
    credential,
    head,
    keyring,
    short_term_key,
    signed,
)
from twinfer.core.errors import Unauthenticated
from twinfer.identity.credential import Credential, digest, issue
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
from twinfer.identity.sigv4 import Head, signing_key
from twinfer.identity.verify import Terms, Verifier, claim_of

V5 = "a7e60d008bb2b3e53c57f4b2566e9d5b5fc59b6b56a4a552c6aa0d0fee79b57d"
BEARER = issue().bearer
LONG = credential(bearer_digest=digest(PEPPER, BEARER))
TERMS = Terms()


def who(
    request: Head, body: bytes = BODY, keys: Keyring | None = None, now: float = NOW, terms: Terms = TERMS
) -> Principal:
    """Who it is from, from beginning to end."""
    return Verifier(keys or keyring(), terms).principal(claim_of(request, terms, now), request, body, now)


def bearer(token: str) -> Head:
    """A request with a bearer key."""
    return head({"host": "h", "authorization": f"Bearer {token}"})


@pytest.mark.parametrize("service", ["bedrock", "bedrock-mantle"])
@pytest.mark.parametrize("region", ["us-east-1", "eu-north-1"])
def test_botocore_s_signature(service: str, region: str) -> None:
    """For both services, and any region while none are listed."""
    assert who(head(signed(service=service, region=region))).tenant == "acme"


@pytest.mark.parametrize(
    "path", ["/model/a:b/converse", "/model/a%3Ab/converse", "/model/x%2Fy%20z/invoke", "/model/é/invoke"]
)
def test_botocore_s_paths(path: str) -> None:
    """However a client writes a model's name on the wire."""
    wire = path.encode().decode("latin-1").replace("Ã©", "%C3%A9")
    assert who(head(signed(wire), wire)).key_id == KEY_ID


@given(st.text("abc&=%?/ é", max_size=12), st.binary(max_size=40), st.sampled_from(["a=b&c", "z=1&a=2&a=1", "k", ""]))
def test_what_botocore_signs_passes(note: str, body: bytes, query: str) -> None:
    """Any headers, bodies and queries."""
    headers = signed(body=body, query=query, x_amzn_bedrock_note=note.encode("latin-1", "replace").decode("latin-1"))
    assert who(head(headers, query=query), body).key_id == KEY_ID


def test_other_services_and_regions_are_refused() -> None:
    """A signature for another service was not meant for us; regions may be listed."""
    with pytest.raises(InvalidSignature, match="correct service"):
        who(head(signed(service="s3")))
    with pytest.raises(InvalidSignature, match="valid Region"):
        who(head(signed(region="eu-west-1")), terms=Terms(regions=("us-east-1",)))


def test_an_unknown_key() -> None:
    """AWS's words."""
    with pytest.raises(UnrecognizedClient, match="The security token included in the request is invalid"):
        who(head(signed()), keys=Keyring([credential("AKIDOTHER")], PEPPER))


def test_a_wrong_secret_or_body() -> None:
    """A known key that did not sign this."""
    for request, body in ((head(signed()), BODY + b" "), (head(signed() | {"content-type": "text/plain"}), BODY)):
        with pytest.raises(InvalidSignature, match="does not match the signature you provided"):
            who(request, body)


@pytest.mark.parametrize(("late_s", "says"), [(360, "Signature expired"), (-360, "Signature not yet current")])
def test_six_minutes_are_too_far(late_s: float, says: str) -> None:
    """Either way."""
    with pytest.raises(InvalidSignature, match=says):
        who(head(signed()), now=NOW + late_s)


def test_session_tokens_belong_to_their_key() -> None:
    """A temporary key needs its own token, a lasting one takes none, and it expires."""
    temporary = keyring(credential(session_digest=digest(PEPPER, "SESS/TOK+="), expires_s=NOW + 60))
    request = head(signed(token="SESS/TOK+="))
    assert who(request, keys=temporary).tenant == "acme"
    with pytest.raises(ExpiredToken):
        who(request, keys=temporary, now=NOW + 61)
    for other in (signed(), signed(token="SESS/TOK"), signed(token="")):
        with pytest.raises(UnrecognizedClient):
            who(head(other), keys=temporary)
    with pytest.raises(UnrecognizedClient):
        who(request)


def test_no_credentials() -> None:
    """Whatever else there is."""
    for headers in ({}, {"authorization": ""}, {"x-amz-date": "x"}):
        with pytest.raises(MissingToken):
            who(head(headers))


def test_a_long_term_key() -> None:
    """Found by its digest; unknown, spoilt and expired ones are refused."""
    assert who(bearer(BEARER), keys=keyring(LONG)).key_id == KEY_ID
    for wrong in (BEARER[:-1], f"{BEARER}A", BEARER.lower(), "ABSK", "none", "é"):
        with pytest.raises(InvalidBearer):
            who(bearer(wrong), keys=keyring(LONG))
    with pytest.raises(ExpiredToken):
        who(bearer(BEARER), keys=keyring(credential(bearer_digest=LONG.bearer_digest, expires_s=NOW)))


def test_the_generator_s_short_term_key() -> None:
    """It needs nothing but the secret; its signature is the known one."""
    key = short_term_key()
    assert f"X-Amz-Signature={V5}" in base64.b64decode(key.removeprefix("bedrock-api-key-")).decode()
    assert who(bearer(key), keys=keyring(LONG)).key_id == KEY_ID


def test_a_short_term_key_ends() -> None:
    """After its time, at most twelve hours; and it is good in its own region alone."""
    assert who(bearer(short_term_key()), now=NOW + 43_199).tenant == "acme"
    with pytest.raises(ExpiredToken):
        who(bearer(short_term_key()), now=NOW + 43_200)
    for wrong in (short_term_key(expires_s=43_201), short_term_key(region="eu-west-1"), short_term_key(secret="other")):
        with pytest.raises(InvalidBearer):
            who(bearer(wrong))
    with pytest.raises(InvalidBearer):
        who(bearer(short_term_key()), now=NOW - 301)


def test_a_short_term_key_of_a_temporary_key() -> None:
    """The session token is in it."""
    keys = keyring(credential(session_digest=digest(PEPPER, "SESS/TOK+="), expires_s=NOW + 60))
    assert who(bearer(short_term_key(token="SESS/TOK+=")), keys=keys).tenant == "acme"
    with pytest.raises(InvalidBearer):
        who(bearer(short_term_key()), keys=keys)


def test_a_new_key_looks_like_aws_s() -> None:
    """So that clients take it; secrets are not shown by accident."""
    lasting, temporary = issue(), issue(temporary=True)
    assert (lasting.key_id[:4], len(lasting.key_id), len(lasting.secret)) == ("AKIA", 20, 40)
    assert lasting.bearer.startswith("ABSK")
    assert temporary.key_id.startswith("ASIA")
    assert temporary.bearer == "" != temporary.session_token
    for text in (repr(lasting), repr(credential())):
        assert lasting.secret not in text
        assert SECRET not in text


REFUSALS = (MissingToken, IncompleteSignature, UnrecognizedClient, InvalidSignature, InvalidBearer, ExpiredToken)
Spoil = Callable[[random.Random, dict[str, str]], tuple[str, type[Unauthenticated] | tuple[type[Unauthenticated], ...]]]


def _other_digit(chance: random.Random, text: str) -> str:
    place = chance.randrange(len(text))
    return (
        text[:place]
        + chance.choice([digit for digit in "0123456789abcdef" if digit != text[place]])
        + text[place + 1 :]
    )


def forged_signature(chance: random.Random, headers: dict[str, str]) -> tuple[str, type[Unauthenticated]]:
    """A digit of it is another."""
    start, _, value = headers["authorization"].rpartition("=")
    return f"{start}={_other_digit(chance, value)}", InvalidSignature


def unknown_key(chance: random.Random, headers: dict[str, str]) -> tuple[str, type[Unauthenticated]]:
    """Somebody else's id."""
    return headers["authorization"].replace(KEY_ID, f"AKID{chance.getrandbits(60)}"), UnrecognizedClient


def lost_part(chance: random.Random, headers: dict[str, str]) -> tuple[str, type[Unauthenticated]]:
    """One of the three parts is not there."""
    parts = headers["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(", ")
    del parts[chance.randrange(3)]
    return "AWS4-HMAC-SHA256 " + ", ".join(parts), IncompleteSignature


def noise(chance: random.Random, headers: dict[str, str]) -> tuple[str, tuple[type[Unauthenticated], ...]]:
    """Anything at all."""
    start = chance.choice(["", "AWS4-HMAC-SHA256 ", "Bearer ", "Basic ", "AWS4-HMAC-SHA256 Credential="])
    text = "".join(chr(chance.randrange(1, 256)) for _ in range(chance.randrange(80)))
    return start + text, (MissingToken, IncompleteSignature, InvalidSignature, InvalidBearer)


def cut(chance: random.Random, headers: dict[str, str]) -> tuple[str, tuple[type[Unauthenticated], ...]]:
    """The header ends early."""
    whole = headers["authorization"]
    return whole[: chance.randrange(len(whole))], (MissingToken, IncompleteSignature, InvalidSignature)


def forged_bearer(chance: random.Random, headers: dict[str, str]) -> tuple[str, type[Unauthenticated]]:
    """A long-term key with a letter changed."""
    place = chance.randrange(4, len(BEARER))
    return f"Bearer {BEARER[:place]}{'B' if BEARER[place] == 'A' else 'A'}{BEARER[place + 1 :]}", InvalidBearer


SHORT = short_term_key()


def forged_short_term(chance: random.Random, headers: dict[str, str]) -> tuple[str, type[Unauthenticated]]:
    """A short-term key with a byte of its query changed, or made with another secret."""
    text = bytearray(base64.b64decode(SHORT.removeprefix("bedrock-api-key-")))
    text[chance.randrange(len(text) - len("&Version=1"))] ^= chance.randrange(1, 128)
    return "Bearer bedrock-api-key-" + base64.b64encode(text).decode(), InvalidBearer


SPOILS: tuple[Spoil, ...] = (
    forged_signature,
    unknown_key,
    lost_part,
    noise,
    cut,
    forged_bearer,
    forged_short_term,
)


def test_ten_thousand_forgeries() -> None:
    """Malformed or forged, each is refused with the error that fits, and none by another way."""
    chance, headers, verifier = random.Random(7), signed(), Verifier(keyring(LONG), TERMS)
    headers = {name.lower(): value for name, value in headers.items()}
    counts = dict.fromkeys(REFUSALS, 0)
    for number in range(10_000):
        authorization, expected = SPOILS[number % len(SPOILS)](chance, headers)
        request = head(headers | {"authorization": authorization}, CONVERSE)
        with pytest.raises(Unauthenticated) as refused:
            verifier.principal(claim_of(request, TERMS, NOW), request, BODY, NOW)
        assert isinstance(refused.value, expected), authorization
        counts[type(refused.value)] += 1
    assert sum(counts.values()) == 10_000
    assert (
        min(counts[kind] for kind in (IncompleteSignature, UnrecognizedClient, InvalidSignature, InvalidBearer)) > 1000
    )


def test_an_unknown_key_has_a_signing_key_too() -> None:
    """Verifying goes its whole way with a secret that nobody has."""
    keys = keyring()
    known, unknown = (claim_of(head(signed() | headers), TERMS, NOW).scope for headers in ({}, _as_unknown()))
    found, key = keys.signer(known)
    nobody, other = keys.signer(unknown)
    assert isinstance(found, Credential)
    assert nobody is None
    assert len(key) == len(other) == 32
    assert key == signing_key(SECRET, known)
    assert other not in (key, signing_key(SECRET, unknown))


def _as_unknown() -> dict[str, str]:
    return {"Authorization": signed()["Authorization"].replace(KEY_ID, "AKIDNOBODY")}
