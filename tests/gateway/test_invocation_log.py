"""The invocation log, and that no other log has what was said."""

import asyncio
import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.gateway.house import EOS, converse_body, open_house
from tests.gateway.test_app import Client, settled
from twinfer.core.config import Config, IdentityConfig, InvocationLogConfig, ModelConfig, UsageConfig
from twinfer.core.errors import EngineFailure
from twinfer.gateway.fake import FakeDispatcher, Script
from twinfer.gateway.models import ModelRegistry, ServedModel
from twinfer.gateway.office import daybook_path, open_office
from twinfer.gateway.serve import build_app

MODEL = "twinfer.tiny-v1:0"
PATH = f"/model/{MODEL}/converse"


async def logged(model: ServedModel, path: Path, *, prompts: bool) -> list[dict[str, Any]]:
    """The lines of an answer and of a failure."""
    config = Config(model=(ModelConfig(id=MODEL),), usage=UsageConfig(enabled=False, flush_s=0.01))
    config = replace(config, invocation_log=InvocationLogConfig(str(path), prompts))
    async with open_office(config) as office, open_house(model, config, office=office) as house:
        house.says("porridge", cached_tokens=2)
        assert (await house.http.post(PATH, json=converse_body("swordfish"))).status_code == 200
        house.plays(Script([], failure=EngineFailure("broken")))
        assert (await house.http.post(PATH, json=converse_body("swordfish"))).status_code == 424
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("prompts", [False, True])
async def test_prompts_only_where_they_are_wanted(
    model: ServedModel, tmp_path: Path, prompts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Counts and names always; and in ordinary logs nothing of what was said, at any level."""
    path = tmp_path / "invocations.jsonl"
    with caplog.at_level(logging.DEBUG):
        answered, failed = await logged(model, path, prompts=prompts)
    assert (answered["schemaType"], answered["operation"], answered["modelId"]) == (
        "ModelInvocationLog",
        "Converse",
        MODEL,
    )
    assert (answered["status"], failed["status"]) == ("answered", "failed")
    assert answered["input"]["cacheReadInputTokenCount"] == 2
    assert path.stat().st_mode & 0o077 == 0
    assert prompts == ("swordfish" in path.read_text()) == ("porridge" in path.read_text())
    if prompts:
        assert answered["input"]["inputBodyJson"] == converse_body("swordfish")
        assert answered["output"]["outputBodyJson"] == {"texts": ["porridge"]}
    assert "swordfish" not in caplog.text
    assert "porridge" not in caplog.text


async def test_a_client_that_leaves_while_its_account_waits(model: ServedModel, tmp_path: Path) -> None:
    """Another's transaction holds the day book up while it is settled: it has its line, the only one, all the same."""
    path, gate = tmp_path / "invocations.jsonl", asyncio.Event()
    config = Config(
        model=(ModelConfig(id=MODEL),),
        identity=IdentityConfig(database=f"sqlite:///{tmp_path}/usage.db", key_file=str(tmp_path / "key")),
        invocation_log=InvocationLogConfig(str(path)),
        usage=UsageConfig(flush_s=0.01, spool=str(tmp_path)),
    )
    dispatcher = FakeDispatcher(lambda request: Script([[5], [EOS]], gates={1: gate}))
    async with open_office(config) as office:
        client = Client(build_app(config, ModelRegistry([model]), dispatcher, office=office), PATH, converse_body())
        async with asyncio.timeout(10):
            while not dispatcher.generations or not dispatcher.generations[0].sent:
                await asyncio.sleep(0)
            with closing(sqlite3.connect(daybook_path(config))) as other:
                other.execute("BEGIN IMMEDIATE")
                gate.set()
                await dispatcher.generations[0].closed.wait()
                await settled()
                client.left.set()
                await client.exchange
    (line,) = map(json.loads, path.read_text().splitlines())
    assert (line["status"], line["output"]["outputTokenCount"], client.sent) == ("answered", 2, [])
