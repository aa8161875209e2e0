"""The command: which addresses it takes, and what it says of those it does not."""

import msgspec
import pytest

from twinfer.chaos.plan import Kind
from twinfer.cli import main
from twinfer.cli.chaos import as_configured, chosen_kinds, local_port
from twinfer.cluster.deployment import DeploymentRecord, WorkerRecord
from twinfer.core.config import HandoffConfig
from twinfer.core.config_text import parse_config
from twinfer.core.errors import ConfigError
from twinfer.core.ids import ModelId, WorkerId

WORKERS = {WorkerId("a-0"): WorkerRecord("both", "unix:/a"), WorkerId("b-1"): WorkerRecord("both", "unix:/b")}
RECORD = DeploymentRecord("", 1, {}, WORKERS, (ModelId("m"),), HandoffConfig(lease_s=7, allow_isolation=True), "")
POOLS = "[[pool]]\nname='a'\nrole='prefill'\n[[pool]]\nname='b'\nrole='decode'\n[handoff]\nlease_s=3\n"


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://127.0.0.1:8000", 8000),
        ("http://localhost:9000/", 9000),
        ("http://[::1]:7000", 7000),
        ("http://127.0.0.1", 80),
    ],
)
def test_local_addresses(url: str, port: int) -> None:
    """Loopback by number or name."""
    assert local_port(url) == port


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["http://10.0.0.1:8000"], "10.0.0.1 is not this machine: run chaos where 'twinfer serve' runs"),
        (["http://example.com:8000"], "example.com is not this machine"),
        (["127.0.0.1:8000"], "is no address of a deployment: write it like http://127.0.0.1:8000"),
        (["https://127.0.0.1:8000"], "is no address of a deployment"),
        (["http://127.0.0.1:x"], "is no URL"),
        (["http://127.0.0.1:1"], "no 'twinfer serve' runs on port 1 of this machine"),
        (["http://127.0.0.1:1", "--json", "/no/such/folder"], "cannot write to '/no/such/folder': No such file"),
        (["http://127.0.0.1:8000", "--events", "0"], "--events is 0; it must be at least 1"),
    ],
)
def test_errors_are_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, before anything is touched."""
    assert main(["chaos", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1


def test_kinds_are_chosen_by_name() -> None:
    """All by default, partitions only where they are allowed; otherwise it says how to allow them."""
    assert chosen_kinds([], partitions=True) == set(Kind)
    assert chosen_kinds([], partitions=False) == {Kind.KILL, Kind.PAUSE, Kind.LONG_PAUSE}
    assert chosen_kinds(["kill", "long-pause"], partitions=False) == {Kind.KILL, Kind.LONG_PAUSE}
    with pytest.raises(ConfigError, match=r"handoff\.allow_isolation=true"):
        chosen_kinds(["partition"], partitions=False)
    with pytest.raises(ConfigError, match="known: kill, pause, long-pause, partition, long-partition"):
        chosen_kinds(["explode"], partitions=True)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """What the words mean, how to allow partitions, and commands to copy."""
    with pytest.raises(SystemExit):
        main(["chaos", "--help"])
    shown = capsys.readouterr().out
    for lesson in ("right by R7", "handoff.allow_isolation=true", "twinfer chaos http://127.0.0.1:8000\n", "Exit code"):
        assert lesson in shown


def test_a_configuration_gives_lease_and_roles() -> None:
    """Only these: what the deployment allows is its own business."""
    configured = as_configured(RECORD, parse_config(POOLS))
    assert [its.role for its in configured.workers.values()] == ["prefill", "decode"]
    assert configured.handoff == msgspec.structs.replace(RECORD.handoff, lease_s=3.0)


def test_another_deployment_s_configuration_is_refused() -> None:
    """It names what it knows nothing of."""
    with pytest.raises(ConfigError, match="the configuration has no pool of b-1; give the one it was started with"):
        as_configured(RECORD, parse_config(POOLS.replace("'b'", "'c'")))
