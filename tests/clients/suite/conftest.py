"""What every client is told. These files run in the clients' own environments: nothing of Twinfer is imported."""

import json
import os
from dataclasses import dataclass
from typing import Any

import pytest

PLAIN = "meta.llama3-1-8b-instruct-v1:0"
CALLER = "qwen.qwen3-32b-v1:0"
SAID = "The sea is deep, blue and salty."
THOUGHT = "I should look."
BEFORE = "Let me see."
CITY = {"city": "Oslo"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Where."}},
    "required": ["city"],
}


@pytest.fixture(scope="session")
def scripted_url() -> str:
    """Where a gateway is whose model follows a conversation, and refuses those who ask for that."""
    return os.environ["TWINFER_SCRIPTED_URL"]


@dataclass(frozen=True)
class Keyed:
    """A deployment that asks for keys, over TLS.

    Attributes:
        ca: file of the authority to trust.
        signed, temporary, bearer: environment variables with one kind of credentials each.
    """

    url: str
    ca: str
    signed: dict[str, str]
    temporary: dict[str, str]
    bearer: dict[str, str]


@pytest.fixture(scope="session")
def keyed() -> Keyed:
    """Where keys are needed."""
    return Keyed(**json.loads(os.environ["TWINFER_KEYED"]))


@pytest.fixture(scope="session")
def url() -> str:
    """Where the deployment is."""
    return os.environ["TWINFER_URL"]
