"""Signatures are those that botocore makes."""

from datetime import UTC, datetime

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from twinfer.core.errors import ConfigError
from twinfer.loadtest.keys import signer
from twinfer.loadtest.sigv4 import Credentials, signed

HOST = "bedrock-runtime.us-east-1.amazonaws.com"


@pytest.mark.parametrize("token", ["", "session"])
@pytest.mark.parametrize("path", ["/model/us.amazon.nova-lite-v1%3A0/converse-stream", "/model/a/converse-stream"])
def test_as_botocore(path: str, token: str):
    """The same request at the same moment has the same signature, with and without a session."""
    body = b'{"messages": []}'
    request = AWSRequest("POST", f"https://{HOST}{path}", data=body, headers={"content-type": "application/json"})
    SigV4Auth(BotoCredentials("AKID", "secret", token or None), "bedrock", "eu-west-1").add_auth(request)
    now = datetime.strptime(request.context["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = signed(
        Credentials("AKID", "secret", "eu-west-1", token),
        path,
        {"content-type": "application/json", "host": HOST},
        body,
        now,
    )
    assert request.headers["Authorization"] == ours["authorization"]


def test_keys_by_dialect():
    """A bearer key wins over credentials; a chat knows OpenAI's variable only; a named variable has to be there."""
    aws = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "r"}
    assert {"authorization": "Bearer k"} == signer("chat", HOST, {"OPENAI_API_KEY": "k"}, None)("/", {}, b"")
    assert {} == signer("chat", HOST, aws, None)("/", {}, b"")
    both = {**aws, "AWS_BEARER_TOKEN_BEDROCK": "k"}
    assert {"authorization": "Bearer k"} == signer("converse", HOST, both, None)("/", {}, b"")
    headers = signer("converse", HOST, aws, None)("/", {}, b"")
    assert {"authorization", "x-amz-date"} == set(headers)
    with pytest.raises(ConfigError, match="MINE: this environment variable is not set"):
        signer("chat", HOST, {}, "MINE")
    with pytest.raises(ConfigError, match="AWS_REGION"):
        signer("converse", HOST, {**aws, "AWS_REGION": ""}, None)
