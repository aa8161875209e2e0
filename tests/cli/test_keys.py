"""``twinfer keys``: what it prints, as text and as JSON, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from twinfer.cli import main
from twinfer.cli.serve import has_keys, without_passwords
from twinfer.core.config import Config, IdentityConfig


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of the test's own, found by the environment."""
    monkeypatch.setenv("TWINFER_DATABASE_URL", f"sqlite:///{tmp_path}/keys.db")
    monkeypatch.delenv("TWINFER_DATABASE_KEY", raising=False)
    return tmp_path / "keys.db"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints as JSON."""
    assert main(["keys", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_key_s_life(capsys: pytest.CaptureFixture[str]) -> None:
    """Created with its secrets, listed without them, revoked."""
    made = run(
        capsys, "create", "--tenant", "acme", "--allow", "bedrock:*@meta.*", "--deny", "*@meta.x", "--note", "CI"
    )
    secrets = [made.pop("secret_access_key"), made.pop("bearer_key")]
    assert all(secrets)
    assert run(capsys, "list") == [made]
    assert (made["tenant"], made["allow"], made["deny"], made["note"]) == (
        "acme",
        ["bedrock:*@meta.*"],
        ["*@meta.x"],
        "CI",
    )
    assert (made["expires"], made["revoked"], made["temporary"]) == (None, None, False)
    assert run(capsys, "revoke", made["access_key_id"]) == {"access_key_id": made["access_key_id"], "revoked": True}
    assert run(capsys, "list")[0]["revoked"] is not None
    assert main(["keys", "revoke", made["access_key_id"]]) == 2


def test_a_temporary_key(capsys: pytest.CaptureFixture[str]) -> None:
    """A session token instead of a bearer key, and an end."""
    made = run(capsys, "create", "--tenant", "acme", "--temporary")
    assert made["session_token"]
    assert "bearer_key" not in made
    assert made["expires"] is not None


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """Variables to copy, and a table without secrets; of one tenant, if asked."""
    assert main(["keys", "create", "--tenant", "acme", "--expires", "90d"]) == 0
    text = capsys.readouterr().out
    variables = dict(line.strip().split("=", 1) for line in text.splitlines() if line.startswith("  AWS_"))
    assert set(variables) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_BEARER_TOKEN_BEDROCK"}
    main(["keys", "create", "--tenant", "other", "--temporary"])
    assert "AWS_SESSION_TOKEN=" in capsys.readouterr().out
    assert main(["keys", "list", "--tenant", "acme"]) == 0
    table = capsys.readouterr().out
    assert variables["AWS_ACCESS_KEY_ID"] in table
    assert "valid until" in table
    assert "other" not in table
    assert variables["AWS_SECRET_ACCESS_KEY"] not in table


def test_no_keys(capsys: pytest.CaptureFixture[str], database: Path) -> None:
    """Says how to make one, and makes nothing."""
    assert main(["keys", "list"]) == 0
    assert "twinfer keys create --tenant NAME" in capsys.readouterr().err
    assert run(capsys, "list") == []
    assert not database.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tenant", "A B"], "--tenant 'A B': write at most 64 of"),
        (["--tenant", "a", "--expires", "soon"], "--expires 'soon': write a number and s, m, h or d"),
        (["--tenant", "a", "--expires", "0d"], "--expires '0d'"),
        (["--tenant", "a", "--allow", "what ever"], "write ACTION or ACTION@MODEL"),
        (["--tenant", "a", "--set", "identity.database=mysql://x"], "give sqlite:///FILE or postgresql://"),
    ],
)
def test_what_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], database: Path
) -> None:
    """In one sentence, before anything is made."""
    assert main(["keys", "create", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not database.exists()


def test_whether_there_are_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """Not before the first, and for ever after it."""
    assert not has_keys(Config())
    made = run(capsys, "create", "--tenant", "a")
    assert has_keys(Config())
    run(capsys, "revoke", made["access_key_id"])
    assert has_keys(Config())


def test_a_shown_configuration_has_no_password() -> None:
    """It is printed at start."""
    config = Config(identity=IdentityConfig(database="postgresql://me:hush@db/x"))
    assert without_passwords(config).identity.database == "postgresql://me:***@db/x"
    assert without_passwords(Config()) == Config()
