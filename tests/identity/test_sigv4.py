"""The verifier's half of SigV4, against signatures computed elsewhere."""

import hashlib

import pytest

from tests.identity.clients import BODY, CONVERSE, KEY_ID, MOMENT, NOW, SECRET, head
from twinfer.identity.refusals import IncompleteSignature, InvalidSignature
from twinfer.identity.sigv4 import (
    Head,
    canonical_query,
    format_moment,
    matches,
    parse_moment,
    payload_hash,
    read_signature,
    sign,
    signing_key,
    skew_refusal,
)

V2 = "e28202fa5c394fe17f3a567e9621f04330838580a23503b8c884af3fded65eb7"
V3 = "d8caff277d2b7c0966f696290003095f8f3b08202a59b03b00410194d1fe43e0"
V4 = "2a3642731bc405665864d1aa0c2e8b359e26e5512482dbd4690a7153485a280c"
ARN = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fabc123/converse"
RAW_COLON = "/model/meta.llama3-1-8b-instruct-v1:0/invoke"
SIGNED = "content-type;host;x-amz-date"


def a_request(path: str, value: str, signed: str = SIGNED, **headers: str) -> Head:
    """The request of the known answers."""
    scope = f"{KEY_ID}/20260102/us-east-1/bedrock/aws4_request"
    return head(
        {
            "host": "127.0.0.1:8000",
            "content-type": "application/json",
            "x-amz-date": MOMENT,
            "authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={signed}, Signature={value}",
            **{name.replace("_", "-"): text for name, text in headers.items()},
        },
        path,
    )


def passes(request: Head, body: bytes) -> bool:
    """Whether the known key signed it."""
    signature = read_signature(request)
    return matches(
        signature, request, payload_hash(request, body, allow_unsigned=False), signing_key(SECRET, signature.scope)
    )


def test_a_path_encoded_once_on_the_wire() -> None:
    """Wire ``%3A`` signs as ``%253A``; the body's hash is the known one."""
    assert hashlib.sha256(BODY).hexdigest() == "c3335e07d6e89650bf94cb98664be69f8774dbc3198df221f113db0a59ea14f0"
    assert passes(a_request(CONVERSE, V2), BODY)


def test_an_arn_and_a_session_token() -> None:
    """A path with an encoded slash, and a token among the signed headers."""
    request = a_request(ARN, V3, f"{SIGNED};x-amz-security-token", x_amz_security_token="SESS/TOK+=")
    assert passes(request, BODY)
    assert read_signature(request).session_token == "SESS/TOK+="


def test_a_raw_colon() -> None:
    """Wire ``:`` signs as ``%3A``."""
    assert passes(a_request(RAW_COLON, V4), b'{"prompt":"hi"}')


def test_the_raw_path_unchanged() -> None:
    """Some clients sign the path as it goes over the wire."""
    request = a_request(CONVERSE, "0" * 64)
    signature = read_signature(request)
    canonical = (
        f"POST\n{CONVERSE}\n\ncontent-type:application/json\nhost:127.0.0.1:8000\nx-amz-date:{MOMENT}\n\n{SIGNED}\n"
        f"{hashlib.sha256(BODY).hexdigest()}"
    )
    value = sign(signing_key(SECRET, signature.scope), MOMENT, signature.scope, canonical)
    assert passes(a_request(CONVERSE, value), BODY)


@pytest.mark.parametrize(
    "spoilt",
    [
        a_request(CONVERSE, V3),
        a_request(ARN, V2),
        a_request(CONVERSE, V2, host="127.0.0.1:8001"),
        a_request(CONVERSE, V2, content_type="text/plain"),
        a_request(f"{CONVERSE}-stream", V2),
        a_request(CONVERSE.replace("%3A", "%3a"), V2),
        Head("PUT", CONVERSE, "", a_request(CONVERSE, V2).headers),
        Head("POST", CONVERSE, "a=b", a_request(CONVERSE, V2).headers),
    ],
)
def test_a_changed_request_does_not_pass(spoilt: Head) -> None:
    """Nor does another's signature."""
    assert not passes(spoilt, BODY)


def test_a_flipped_byte_of_the_body() -> None:
    """The signature covers it."""
    assert not passes(a_request(CONVERSE, V2), BODY.replace(b"hi", b"ho"))


def test_headers_are_trimmed_and_joined() -> None:
    """As AWS's clients write them in the text that they sign: inner spaces once, duplicates with commas."""
    tidy = a_request(CONVERSE, V2)
    spaced = Head("POST", CONVERSE, "", {**tidy.headers, "content-type": ["  application/json "]})
    assert passes(spaced, BODY)


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        ("", ""),
        ("k", "k="),
        ("b=2&a=1", "a=1&b=2"),
        ("a=2&a=1", "a=1&a=2"),
        ("a=%2F&b", "a=%2F&b="),
        ("a=1=2", "a=1=2"),
    ],
)
def test_queries_are_sorted(query: str, canonical: str) -> None:
    """By name, then by value as it came; a name without a value gets an equals sign."""
    assert canonical == canonical_query(query)


def test_a_declared_hash_must_be_the_body_s() -> None:
    """Whoever declares one is held to it; without a body, only where the operator allows it."""
    right = {"x-amz-content-sha256": hashlib.sha256(BODY).hexdigest()}
    assert payload_hash(head(right), BODY, allow_unsigned=False) == right["x-amz-content-sha256"]
    for wrong in ("0" * 64, "UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "nonsense"):
        with pytest.raises(InvalidSignature):
            payload_hash(head({"x-amz-content-sha256": wrong}), BODY, allow_unsigned=False)
    unsigned = head({"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    assert payload_hash(unsigned, BODY, allow_unsigned=True) == "UNSIGNED-PAYLOAD"


@pytest.mark.parametrize("name", ["x-amz-target", "x-amz-security-token", "x-amzn-bedrock-request-metadata"])
def test_what_counts_must_be_signed(name: str) -> None:
    """A header that changes what is done, and that anybody on the way could add."""
    with pytest.raises(InvalidSignature, match=f"{name} is not signed"):
        read_signature(a_request(CONVERSE, V2, **{name.replace("-", "_"): "x"}))


def test_the_authority_of_http_2_is_the_host() -> None:
    """The AWS SDK for JavaScript signs it under that name; it covers the same value."""
    names = ":authority;content-type;x-amz-date"
    canonical = (
        f"POST\n{CONVERSE.replace('%', '%25')}\n\n:authority:127.0.0.1:8000\ncontent-type:application/json\n"
        f"x-amz-date:{MOMENT}\n\n{names}\n{hashlib.sha256(BODY).hexdigest()}"
    )
    scope = read_signature(a_request(CONVERSE, V2)).scope
    value = sign(signing_key(SECRET, scope), MOMENT, scope, canonical)
    assert passes(a_request(CONVERSE, value, names), BODY)
    assert not passes(a_request(CONVERSE, value, names, host="127.0.0.1:8001"), BODY)


@pytest.mark.parametrize("signed", ["content-type;x-amz-date", "content-type;host"])
def test_host_and_date_must_be_signed(signed: str) -> None:
    """Else a signature would be good elsewhere, or at any time."""
    with pytest.raises(InvalidSignature, match="is not signed"):
        read_signature(a_request(CONVERSE, V2, signed))


@pytest.mark.parametrize(
    "authorization",
    [
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 ",
        "AWS4-HMAC-SHA512 Credential=a",
        "Basic YTpi",
        "AWS4-HMAC-SHA256 Credential=A/20260102/r/bedrock/aws4_request, SignedHeaders=host",
        f"AWS4-HMAC-SHA256 Credential=A/20260102/r/bedrock, SignedHeaders=host, Signature={V2}",
        f"AWS4-HMAC-SHA256 Credential=A/20260102//bedrock/aws4_request, SignedHeaders=host, Signature={V2}",
        f"AWS4-HMAC-SHA256 Credential=A/2026010/r/bedrock/aws4_request, SignedHeaders=host, Signature={V2}",
        f"AWS4-HMAC-SHA256 Credential=A/20260102/r/bedrock/aws4_request, SignedHeaders=, Signature={V2}",
        f"AWS4-HMAC-SHA256 Credential=A/20260102/r/bedrock/aws4_request, SignedHeaders=a;;b, Signature={V2}",
        "AWS4-HMAC-SHA256 Credential=A/20260102/r/bedrock/aws4_request, SignedHeaders=host, Signature=xyz",
        f"AWS4-HMAC-SHA256 Credential=A/20260102/r/b/aws4_request,Credential=B,SignedHeaders=host,Signature={V2}",
    ],
)
def test_malformed_headers_are_incomplete(authorization: str) -> None:
    """Told apart from a wrong signature: no secret was looked at."""
    with pytest.raises(IncompleteSignature):
        read_signature(a_request(CONVERSE, V2, authorization=authorization))


def test_a_header_that_came_twice_is_refused() -> None:
    """One of them could be what was signed, and the other what is obeyed."""
    request = a_request(CONVERSE, V2)
    for name in ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"):
        twice = Head("POST", CONVERSE, "", {**request.headers, name: [*request.headers.get(name, ["x"]), "y"]})
        with pytest.raises((IncompleteSignature, InvalidSignature)):
            passes(twice, BODY)


@pytest.mark.parametrize(
    "moment", ["", "20260102", "20261302T030405Z", "20260102T030405", "2026-01-02T03:04:05Z", "٢" * 15]
)
def test_a_moment_must_be_one(moment: str) -> None:
    """In the basic form of ISO 8601."""
    with pytest.raises(IncompleteSignature):
        read_signature(a_request(CONVERSE, V2, x_amz_date=moment))


def test_a_date_header_stands_in_for_x_amz_date() -> None:
    """As older clients send it."""
    request = a_request(CONVERSE, V2, "content-type;host;date", date="Fri, 02 Jan 2026 03:04:05 GMT")
    without = {name: values for name, values in request.headers.items() if name != "x-amz-date"}
    assert read_signature(Head("POST", CONVERSE, "", without)).moment == MOMENT


def test_the_scope_s_day_is_the_moment_s() -> None:
    """A signing key is good for one day."""
    with pytest.raises(InvalidSignature, match="Date in Credential scope"):
        read_signature(a_request(CONVERSE, V2, x_amz_date="20260103T030405Z"))


def test_moments() -> None:
    """There and back."""
    assert format_moment(NOW) == MOMENT
    assert parse_moment(MOMENT) == NOW


def test_skew_is_worded_as_aws_does() -> None:
    """Clients correct their clock by it."""
    assert skew_refusal(NOW, NOW + 300, 300) is None
    assert skew_refusal(NOW, NOW - 300, 300) is None
    assert (
        skew_refusal(NOW, NOW + 360, 300)
        == "Signature expired: 20260102T030405Z is now earlier than 20260102T030505Z (20260102T031005Z - 5 min.)"
    )
    assert (
        skew_refusal(NOW, NOW - 360, 300)
        == "Signature not yet current: 20260102T030405Z is still later than 20260102T030305Z "
        "(20260102T025805Z + 5 min.)"
    )
