"""Clients of several tenants that ask through every door, leave in the middle, and come again when they are refused."""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.gateway.output_shape import events
from twinfer.usage.record import Tokens

SECRET = "swordfish"
"""A word in every prompt that no log may have."""
TIERS = ("default", "default", "priority", "flex", "reserved")
TRIES = 3
_PARAGRAPH = "It was the best of times, it was the worst of times, it was the age of wisdom. "


@dataclass
class Told:
    """What clients were told.

    Attributes:
        complete: what each response that came to its end says that it used, by request id.
        started: ids of responses that began, complete ones among them.
        left: how many requests were given up on purpose.
        refused: how many were answered with an error, or broke off.
        questions: how many there were.
    """

    complete: dict[str, Tokens] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)
    left: int = 0
    refused: int = 0
    questions: int = 0


class Crowd:
    """Clients side by side on one gateway.

    Args:
        keys: bearer keys, one for each tenant.
    """

    def __init__(self, url: str, model: str, keys: list[str], seed: int) -> None:
        self.told = Told()
        self._url = url
        self._model = model
        self._keys = keys
        self._random = random.Random(seed)

    async def ask(self, num_requests: int, num_clients: int, has_enough: Callable[[], bool]) -> None:
        """Ask so many questions, and more until there is enough of them; some of them more than once."""
        limits = httpx.Limits(max_connections=num_clients * 2)
        async with httpx.AsyncClient(base_url=self._url, timeout=60, limits=limits) as http:

            async def client() -> None:
                while self.told.questions < num_requests or not has_enough():
                    self.told.questions += 1
                    await self._ask_one(http)

            await asyncio.gather(*(client() for _ in range(num_clients)))

    async def _ask_one(self, http: httpx.AsyncClient) -> None:
        path, body = self._question()
        headers = {"authorization": f"Bearer {self._random.choice(self._keys)}"}
        patience_s = self._random.uniform(0.0, 0.2) if self._random.random() < 0.15 else None
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(patience_s):
                    if await self._try(http, path, body, headers):
                        return
            except TimeoutError:
                self.told.left += 1
                return
            except httpx.TransportError:
                self.told.refused += 1
            await asyncio.sleep(0.02)

    async def _try(self, http: httpx.AsyncClient, path: str, body: Any, headers: dict[str, str]) -> bool:
        """Whether there was a whole answer, or nothing more is wanted."""
        leave_early = self._random.random() < 0.1
        async with http.stream("POST", path, json=body, headers=headers) as response:
            request_id = response.headers["x-request-id"]
            if response.status_code != 429:
                self.told.started.add(request_id)
            data = bytearray()
            async for part in response.aiter_bytes():
                data += part
                if leave_early and response.status_code == 200 and len(data) > 300:
                    self.told.left += 1
                    return True
        used = _used(path, bytes(data)) if response.status_code == 200 else None
        if used is None:
            self.told.refused += 1
            return False
        self.told.complete[request_id] = used
        return True

    def _question(self) -> tuple[str, dict[str, Any]]:
        draw = self._random
        text = f"{SECRET} {_PARAGRAPH * draw.randrange(1, 6)}{draw.randrange(40)}"
        most, tier = draw.randrange(1, 33), draw.choice(TIERS)
        point = [{"cachePoint": {"type": "default"}}] if draw.random() < 0.3 else []
        converse = {
            "messages": [{"role": "user", "content": [{"text": text}, *point]}],
            "inferenceConfig": {"maxTokens": most},
            "serviceTier": {"type": tier},
        }
        chat = {
            "model": self._model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": most,
            "service_tier": {"reserved": "scale"}.get(tier, tier),
            "n": draw.choice((1, 1, 1, 2)),
        }
        streamed = {**chat, "stream": True, "stream_options": {"include_usage": True}}
        return draw.choice(
            [
                (f"/model/{self._model}/converse", converse),
                (f"/model/{self._model}/converse-stream", converse),
                ("/v1/chat/completions", chat),
                ("/v1/chat/completions", streamed),
            ]
        )


def _used(path: str, data: bytes) -> Tokens | None:
    """What a response says that it used; nothing where it broke off."""
    if path.endswith("converse"):
        return _of_bedrock(json.loads(data)["usage"])
    if path.endswith("converse-stream"):
        found = [body for name, body in events(data) if name == "metadata"]
        return _of_bedrock(found[0]["usage"]) if found else None
    if not data.startswith(b"data:"):
        return _of_openai(json.loads(data)["usage"])
    chunks = [line.removeprefix(b"data: ") for line in data.split(b"\n\n")]
    for chunk in chunks:
        with contextlib.suppress(ValueError):
            body = json.loads(chunk)
            if body.get("usage"):
                return _of_openai(body["usage"])
    return None


def _of_bedrock(usage: dict[str, Any]) -> Tokens:
    names = ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens", "outputTokens")
    return Tokens(*(usage[name] for name in names))


def _of_openai(usage: dict[str, Any]) -> Tokens:
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return Tokens(usage["prompt_tokens"] - cached, cached, 0, usage["completion_tokens"])
