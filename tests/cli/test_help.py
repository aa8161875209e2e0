"""The command line teaches, answers quickly, and words its errors as one sentence."""

import subprocess
import sys

import pytest

from twinfer import __version__
from twinfer.cli import main, parser

HEAVY = ("asyncio", "grpc", "httptools", "msgspec", "numpy", "rich", "starlette", "tokenizers", "torch", "uvicorn")
IMPORTED_BY_HELP = """
import sys
from twinfer.cli import main
try:
    main(["--help"])
finally:
    print(*(name for name in sys.argv[1:] if name in sys.modules), file=sys.stderr)
"""


def test_help_imports_nothing_heavy():
    """``twinfer --help`` costs an interpreter's start and argparse, nothing else."""
    command = [sys.executable, "-c", IMPORTED_BY_HELP, *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert done.stdout.startswith("usage: twinfer")


@pytest.mark.parametrize(
    ("arguments", "lessons"),
    [
        (["--help"], ["twinfer serve ./", "--config twinfer.toml", "twinfer doctor"]),
        (["serve", "--help"], ["--set pool.decode.weights=bf16", "--port 9000", "Ctrl-C"]),
        (["devices", "--help"], ["twinfer devices show cs3", "measure [--write]", "Nobody outside the vendors"]),
        (["bench", "run", "--help"], ["--trace conversation_trace.jsonl", "--find-rate --slo-ttft 1", "Exit code 0"]),
        (["bench", "compare", "--help"], ["before.json after.json", "not the same work are refused"]),
        (["roll", "--help"], ["twinfer roll ./my-model-v2", "--in-place", "Exit code 0"]),
        (["worker", "--help"], ["TWINFER_CLUSTER_KEY", "--listen 127.0.0.1:7001", "pool.prefill.addresses"]),
    ],
)
def test_help_teaches(arguments: list[str], lessons: list[str], capsys: pytest.CaptureFixture[str]):
    """Each help shows commands to copy."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert [lesson for lesson in lessons if lesson not in shown] == []


def test_version(capsys: pytest.CaptureFixture[str]):
    """``--version`` says it."""
    with pytest.raises(SystemExit):
        main(["--version"])
    assert f"twinfer {__version__}\n" == capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["sreve"], ["worker", "--pool", "prefill"], ["serve", "--port", "http"]])
def test_a_wrong_command_line_ends_with_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    """Argparse's own errors: exit code 2, and how it should have been."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: twinfer")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--set", "gateway.prot=1"], "unknown key 'gateway.prot' in the configuration; did you mean 'port'?"),
        (["serve", "--config", "/nowhere.toml"], "cannot read the configuration '/nowhere.toml': No such file"),
        (["serve", "--port", "70000"], "gateway.port is 70000; a port lies between 0 and 65535"),
        (["serve", "--host", "0.0.0.0"], "authentication is not configured: make a key first"),
        (["serve", "--port", "0", "./no-such-model"], "'./no-such-model' is neither 'demo', nor a directory"),
        (["serve", "--prefill", "trn3"], "give both --prefill and --decode"),
        (["serve", "--model-shape", "qwen3-8b"], "give both --prefill and --decode"),
        (["serve", "demo", "--prefill", "trn3", "--decode", "cs3"], "leave out MODEL and --config"),
        (["serve", "--prefill", "trn3", "--decode", "cs33"], "no device or link 'cs33' in the catalogue; did you mean"),
        (
            ["serve", "--prefill", "trn3", "--decode", "cs3", "--set", "pool.decode.emulation.devices=1"],
            "gpt-oss-120b does not fit on 1 x cs3",
        ),
        (
            ["serve", "--port", "0", "--set", "pool.prefill.model=x"],
            "pool 'prefill' serves 'x', which is no [[model]] id",
        ),
        (["worker", "--pool", "x", "--listen", "127.0.0.1:0"], "there is no pool 'x'; known are prefill, decode"),
        (["worker", "--pool", "decode", "--listen", "127.0.0.1:0"], "TWINFER_CLUSTER_KEY is missing or short"),
    ],
)
def test_config_errors_are_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Exit code 2, one line on standard error, no traceback."""
    monkeypatch.delenv("TWINFER_CLUSTER_KEY", raising=False)
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("twinfer: ")
    assert message in shown
    assert len(shown.splitlines()) == 1


def test_every_command_has_a_module():
    """What the help lists can be run."""
    commands = next(action for action in parser()._actions if action.dest == "command").choices
    assert commands is not None
    for name in commands:
        module = __import__(f"twinfer.cli.{name}", fromlist=["run"])
        assert callable(module.run)
