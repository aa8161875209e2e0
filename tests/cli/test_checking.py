"""New weights are looked at in a process of its own, which says what it found, or is ended."""

import asyncio
import contextlib
import shutil
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


@pytest.mark.timeout(30)
async def test_who_stops_does_not_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A roll whose new weights never come ends with the deployment, and nobody goes on asking for them."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()  # to its end
        gone.set()
        writer.close()

    crew = Crew(Supervisor(bytes(32), Told()), tmp_path, [], to_command, [])
    rolls = Rolls(SERVED, crew, tmp_path, lambda served: None, lambda text: None)
    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server, asyncio.timeout(20):
        hub = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for name, value in (("HF_ENDPOINT", hub), ("HF_HUB_OFFLINE", "0"), ("NO_PROXY", "*")):
            monkeypatch.setenv(name, value)
        rolling = asyncio.create_task(rolls.carry_out(Roll("some/model"), lambda text: None))
        await asked.wait()
        rolling.cancel()
        await asyncio.wait([rolling])
        await gone.wait()
    assert rolling.cancelled()
