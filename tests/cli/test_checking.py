"""New weights are looked at in a process of its own, which says what it found, or is ended."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from tests.cluster.test_crew import to_command
from tests.cluster.test_supervisor import Told
from twinfer.cli.checking import Question, Served, checked, checked_apart
from twinfer.cli.rolls import Rolls
from twinfer.cluster.crew import Crew
from twinfer.cluster.orders import Roll
from twinfer.cluster.supervisor import Supervisor
from twinfer.core.capabilities import Role
from twinfer.core.config import Config, ModelConfig, PoolConfig
from twinfer.core.errors import ConfigError
from twinfer.core.ids import ModelId
from twinfer.model.checkpoint import locate

ASKS = """
import asyncio, sys, msgspec
from twinfer.cli.checking import Question, checked_apart
asyncio.run(checked_apart(msgspec.json.decode(sys.stdin.buffer.read(), type=Question)))
"""
DEMO = locate("demo").resolve()
MODEL = ModelConfig("twinfer.demo-v1:0")
SERVED = Served(Config(model=(MODEL,), pool=(PoolConfig(name="one", role=Role.BOTH),)), {ModelId(MODEL.id): str(DEMO)})


def question(directory: Path) -> Question:
    """Whether what is there may be served."""
    model = msgspec.structs.replace(MODEL, source=str(directory))
    return Question(SERVED, msgspec.structs.replace(SERVED.config, model=(model,)), model, other=True)


def test_the_directory_that_is_served(tmp_path: Path) -> None:
    """It cannot be told from itself, whatever was changed in it, by whatever name."""
    (tmp_path / "again").symlink_to(DEMO)
    with pytest.raises(ConfigError, match="is what is served"):
        checked(question(tmp_path / "again"))


async def test_what_was_found(tmp_path: Path) -> None:
    """The same as here, and its reasons in its words."""
    asked = question(Path(shutil.copytree(DEMO, tmp_path / "new")))
    assert checked(asked) == await checked_apart(asked)
    (tmp_path / "new" / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        await checked_apart(asked)


@pytest.fixture
def meddle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes processes to come do something whenever they open a model's shape."""

    def made(statement: str) -> None:
        hook = f"lambda event, args: {statement} if event == 'open' and str(args[0]).endswith('/config.json') else None"
        (tmp_path / "sitecustomize.py").write_text(f"import os, sys\nsys.addaudithook({hook})\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    return made


async def test_what_is_printed_meanwhile(
    meddle: Callable[[str], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Is no part of the answer, and is seen."""
    meddle("os.write(1, b'hello')")
    asked = question(Path(shutil.copytree(DEMO, tmp_path / "new")))
    assert checked(asked) == await checked_apart(asked)
    seen = capfd.readouterr()
    assert ("", True) == (seen.out, "hello" in seen.err)


async def test_a_bug(meddle: Callable[[str], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is told where people look for it, and it is said where that is."""
    meddle("1 / 0")
    asked = question(Path(shutil.copytree(DEMO, tmp_path / "new")))
    with pytest.raises(ConfigError, match="ended with exit code 1; the deployment's terminal says why"):
        await checked_apart(asked)
    assert "ZeroDivisionError" in capfd.readouterr().err


class Hub:
    """One that never answers, and knows when it was asked, and when whoever asked has gone."""

    def __init__(self) -> None:
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        self.asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        self.left.set()
        writer.close()


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    """Where models come from."""
    hub = Hub()
    async with await asyncio.start_server(hub.serve, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for name, value in (("HF_ENDPOINT", address), ("HF_HUB_OFFLINE", "0"), ("NO_PROXY", "*")):
            monkeypatch.setenv(name, value)
        yield hub


@pytest.mark.timeout(30)
async def test_who_stops_does_not_wait_for_it(hub: Hub, tmp_path: Path) -> None:
    """A roll whose new weights never come ends with the deployment, and nobody goes on asking for them."""
    crew = Crew(Supervisor(bytes(32), Told()), tmp_path, [], to_command, [])
    rolls = Rolls(SERVED, crew, tmp_path, lambda served: None, lambda text: None)
    rolling = asyncio.create_task(rolls.carry_out(Roll("some/model"), lambda text: None))
    async with asyncio.timeout(20):
        await hub.asked.wait()
        rolling.cancel()
        await asyncio.wait([rolling])
        await hub.left.wait()
    assert rolling.cancelled()


@pytest.mark.timeout(30)
async def test_it_ends_with_who_asked(hub: Hub) -> None:
    """Also with one who was killed, and could not end it: nobody holds the other end of its input then."""
    pipe = asyncio.subprocess.PIPE
    asks = await asyncio.create_subprocess_exec(sys.executable, "-c", ASKS, stdin=pipe, stderr=pipe)
    assert asks.stdin is not None
    assert asks.stderr is not None
    asks.stdin.write(msgspec.json.encode(question(Path("some/model"))))
    asks.stdin.close()
    async with asyncio.timeout(20):
        await hub.asked.wait()
        asks.kill()
        await asks.wait()
        assert b"" == await asks.stderr.read()  # to its end, which is that of whoever has inherited it
