"""The AWS SDK for JavaScript, whose client of the runtime speaks HTTP/2 alone."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conftest import PLAIN, SAID, Keyed

NODE = shutil.which("node")
MODULES = Path(os.environ.get("TWINFER_NODE_MODULES", "/nowhere"))
SCRIPT = Path(__file__).parents[1] / "javascript" / "ask.cjs"
pytestmark = pytest.mark.skipif(
    NODE is None or not (MODULES / "@aws-sdk").is_dir(), reason="the AWS SDK for JavaScript is not installed"
)


def ask(url: str, environment: Mapping[str, str]) -> Any:
    """What the script found."""
    assert NODE is not None
    ambient = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    variables = ambient | environment | {"NODE_PATH": str(MODULES)}
    done = subprocess.run([NODE, str(SCRIPT), url, PLAIN], env=variables, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def check(found: Any) -> None:
    """Everything came, in order."""
    assert (found["whole"], found["streamed"], found["native"]) == (SAID, SAID, SAID), found
    assert (found["kinds"][0], found["kinds"][-1]) == ("messageStart", "metadata")
    assert found["usage"]["outputTokens"] > 0
    assert found["together"] == 8
    assert found["refused"] == "ValidationException"


def test_by_prior_knowledge(url: str) -> None:
    """Without TLS it speaks HTTP/2 all the same."""
    check(ask(url, {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}))


@pytest.mark.parametrize("kind", ["signed", "temporary", "bearer"])
def test_over_tls(keyed: Keyed, kind: str) -> None:
    """By ALPN, with each kind of key."""
    check(ask(keyed.url, {**getattr(keyed, kind), "NODE_EXTRA_CA_CERTS": keyed.ca}))


def test_a_wrong_key(keyed: Keyed) -> None:
    """The exception's name and status."""
    wrong = {**keyed.signed, "AWS_SECRET_ACCESS_KEY": "wrong", "NODE_EXTRA_CA_CERTS": keyed.ca}
    assert ask(keyed.url, wrong) == {"error": "InvalidSignatureException", "status": 403}
