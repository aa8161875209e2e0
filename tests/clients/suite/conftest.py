"""What every client is told. These files run in the clients' own environments: nothing of Twinfer is imported."""

import os
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


@pytest.fixture(scope="session")
def url() -> str:
    """Where the deployment is."""
    return os.environ["TWINFER_URL"]
