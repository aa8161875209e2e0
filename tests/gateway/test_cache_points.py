"""Cache points: where they are in the prompt, and what a client is told of them."""

from typing import Any

import msgspec
import pytest

from tests.fakes import SmallEngine
from tests.gateway.house import House, converse_body, frames
from twinfer.core.request import Stopping
from twinfer.gateway.fake import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/model/twinfer.tiny-v1:0/converse"
POINT = {"cachePoint": {"type": "default"}}
HOUR = {"cachePoint": {"type": "default", "ttl": "1h"}}


def asking(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A user's turn of these blocks."""
    return {"messages": [{"role": "user", "content": list(content)}], **fields}


async def pins_of(house: House, body: dict[str, Any]) -> list[tuple[str, float]]:
    """The text of each beginning that is to be kept, and for how long."""
    answer = await house.http.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    request = house.dispatcher.generations[-1].request
    decode = house.model.tokenizer.decode
    return [(decode(request.prompt[: pin.num_tokens]).strip(), pin.ttl_s) for pin in request.pins]


async def test_a_beginning_ends_where_its_point_is(house: House) -> None:
    """After the text before it, in system and messages alike; what comes later changes nothing."""
    body = asking({"text": "The quick fox."}, POINT, {"text": "Jump"}, system=[{"text": "Be brief."}, HOUR])
    for text in ("Jump", "Wait"):
        body["messages"][0]["content"][-1]["text"] = text
        found = await pins_of(house, body)
        assert [ttl_s for _, ttl_s in found] == [3600, 300]
        assert found[0][0].endswith("Be brief.")
        assert "fox" not in found[0][0]
        assert found[1][0].endswith("The quick fox.")


async def test_points_among_tools_and_results(roomy: House) -> None:
    """Tools are kept with what the system says; a point behind a tool's result keeps the result."""
    spec = {"name": "look", "description": "Looks", "inputSchema": {"json": {"type": "object"}}}
    call = {"toolUse": {"toolUseId": "t1", "name": "look", "input": {}}}
    result = {"toolResult": {"toolUseId": "t1", "content": [{"text": "seen it"}]}}
    body = {
        "messages": [
            {"role": "user", "content": [{"text": "look!"}]},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result, POINT]},
        ],
        "toolConfig": {"tools": [{"toolSpec": spec}, HOUR]},
    }
    tools, results = await pins_of(roomy, body)
    assert ("Looks" in tools[0], "look!" in tools[0], tools[1]) == (True, False, 3600)
    assert "seen it" in results[0]


async def test_the_accounts_add_up(house: House) -> None:
    """Read, written and neither are the prompt; writes are told by their time, the longer first."""
    body = asking({"text": "The quick fox."}, POINT, {"text": "Jump"}, system=[{"text": "Be brief."}, HOUR])
    for cached in (0, 3, 10_000):
        house.says("Hello", cached_tokens=cached)
        usage = (await house.http.post(PATH, json=body)).json()["usage"]
        request = house.dispatcher.generations[-1].request
        prompt, (first, last) = len(request.prompt), (pin.num_tokens for pin in request.pins)
        read = min(cached, prompt)
        assert usage["cacheReadInputTokens"] == read
        assert usage["cacheWriteInputTokens"] == max(0, last - read)
        assert usage["inputTokens"] + usage["cacheReadInputTokens"] + usage["cacheWriteInputTokens"] == prompt
        assert usage["totalTokens"] == prompt + usage["outputTokens"]
        writes = (
            []
            if cached > prompt
            else [{"ttl": "1h", "inputTokens": first - read}, {"ttl": "5m", "inputTokens": last - first}]
        )
        assert usage["cacheDetails"] == writes
    stream = await house.http.post(f"{PATH}-stream", json=body)
    assert dict(frames(stream.content))["metadata"]["usage"] == usage


async def test_a_changed_tool_is_not_found(roomy: House) -> None:
    """A real engine's prefix cache, asked by what the gateway makes of the same turn: tools stand before all else."""
    engine, found = SmallEngine(1024), list[int]()
    for description in ("Looks a word up", "Looks a word up", "Finds a word"):
        spec = {"name": "look", "description": description, "inputSchema": {"json": {"type": "object"}}}
        body = asking({"text": "The quick fox. " * 200}, POINT, {"text": "Jump"})
        body["toolConfig"] = {"tools": [{"toolSpec": spec}]}
        assert (await roomy.http.post(PATH, json=body)).status_code == 200
        request = msgspec.structs.replace(roomy.dispatcher.generations[-1].request, stopping=Stopping(1))
        before = engine.engine.load().counters.cached_tokens
        engine.engine.submit(request)
        engine.run()
        found.append(engine.engine.load().counters.cached_tokens - before)
    first, _, changed = (each.request.prompt for each in roomy.dispatcher.generations[-3:])
    common = next(at for at, pair in enumerate(zip(first, changed, strict=False)) if len(set(pair)) == 2)
    (pin,) = request.pins
    assert found[0] == 0
    assert found[1] >= pin.num_tokens // 4 * 4 > 5 * common
    assert found[2] <= common


async def test_without_a_point_nothing_is_written(house: House) -> None:
    """Whatever is found; and then there are no details, either."""
    house.plays(Script([[5]], cached_tokens=3))
    usage = (await house.http.post(PATH, json=converse_body())).json()["usage"]
    assert (usage["cacheReadInputTokens"], usage["cacheWriteInputTokens"], "cacheDetails" in usage) == (3, 0, False)


async def test_longer_times_come_first(house: House) -> None:
    """In the order tools, system, messages; five points are too many wherever they are."""
    answer = await house.http.post(PATH, json=asking({"text": "a"}, POINT, {"text": "b"}, HOUR))
    assert answer.status_code == 400
    assert "The cachePoint at messages.0.content.3 has a longer ttl" in answer.json()["message"]
    many = asking(*[{"text": "a"}, POINT] * 3, system=[{"text": "s"}, POINT, {"text": "s"}, POINT])
    assert "4 cachePoint blocks at most" in (await house.http.post(PATH, json=many)).json()["message"]
