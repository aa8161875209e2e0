"""Sends spoilt requests to the gateway and judges what comes back."""

import asyncio
import gc
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from tests.gateway import openai_shape
from tests.gateway.fuzz.bodies import good_requests
from tests.gateway.fuzz.exchange import Exchange, Received, Sent
from tests.gateway.fuzz.mutate import spoil_bytes, spoil_headers, spoil_path, spoil_value, write
from tests.gateway.house import EOS
from tests.gateway.output_shape import check_response
from twinfer.core import errors
from twinfer.core.config import Config, GatewayConfig, ModelConfig
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import FinishReason
from twinfer.gateway.fake import FakeDispatcher, Script
from twinfer.gateway.models import ModelRegistry, ServedModel
from twinfer.gateway.serve import build_app

DEADLINE_S = 30.0
"""A request that takes longer hangs; the slowest take a fraction of a second."""
MAX_BODY_BYTES = 1_000_000
GOOD = good_requests()
BODIES = [body for _, _, body in GOOD if body is not None]
FAILURES: tuple[Callable[[], errors.TwinferError], ...] = (
    lambda: errors.CapacityError("Full.", 1.5),
    lambda: errors.ModelNotReady("Loading.", 1.0),
    lambda: errors.WorkerLost("Gone."),
    lambda: errors.DeadlineExceeded("Late."),
    lambda: errors.EngineFailure("Broken."),
)
ANSWERS = (
    "Hello 東京 world",
    "<think>\nHm.\n</think>\n\nYes.",
    '<think>Hm.</think>See.<tool_call>\n{"name": "look_up", "arguments": {"city": "東京"}}\n</tool_call>',
    '<tool_call>{"name": "look_up", "arguments": {"city": ',
    ' {"city": "x"}}\n</tool_call>',
    "aENDb",
)


@dataclass
class Findings:
    """What some requests brought.

    Attributes:
        wrong: a request's number, and what was wrong with its answer.
        slowest_s: the longest that one took, and its number.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[int, str]] = field(default_factory=list)
    slowest_s: tuple[float, int] = (0.0, -1)


class Front:
    """A gateway over engines that say anything, and now and then fail."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self.dispatcher = FakeDispatcher(self._script)
        self._random = Random(0)
        self.failed = False
        """Whether an engine failed in the request under way."""
        config = Config(
            model=(ModelConfig(id=model.id),), gateway=GatewayConfig(max_body_bytes=MAX_BODY_BYTES, max_requests=100)
        )
        self.app = build_app(config, ModelRegistry([model]), self.dispatcher)

    async def run(self, number: int) -> tuple[Sent, Received]:
        """The request of this number.

        Raises:
            AssertionError: what came back is not what a client may expect.
        """
        self._random = random = Random(number)
        self.failed = False
        sent = make(random)
        exchange = Exchange(random, sent)
        async with asyncio.timeout(DEADLINE_S):
            await exchange.run(self.app)
        assert all(each.closed.is_set() for each in self.dispatcher.generations), "an answer was not closed"
        self.dispatcher.generations.clear()
        self.dispatcher.forced.clear()
        judge(sent, exchange.received, self.failed)
        return sent, exchange.received

    def _script(self, request: GenerationRequest) -> Script:
        random = self._random
        if random.random() < 0.5:
            text = random.choice(ANSWERS)
            ids = list(self._model.tokenizer.encode(text, add_special_tokens=False))
        else:
            ids = [random.randrange(1200) for _ in range(random.randint(0, 40))]
        ids.append(EOS)
        size = random.choice((1, 1, 3, 100))
        batches = [ids[start : start + size] for start in range(0, len(ids), size)]
        failure = random.choice(FAILURES)() if random.random() < 0.05 else None
        self.failed = self.failed or failure is not None
        kept = random.randint(0, len(batches)) if failure else len(batches)
        finish = random.choice((FinishReason.STOP, FinishReason.STOP, FinishReason.CONTEXT))
        return Script(batches[:kept], finish, failure, cached_tokens=random.randint(0, 40))


def make(random: Random) -> Sent:
    """A request, spoilt in one or several ways, or in none."""
    method, path, good = random.choice(GOOD)
    headers: list[tuple[bytes, bytes]] = []
    value = good if random.random() < 0.1 else spoil_value(random, {} if good is None else good, BODIES)
    body = b"" if good is None and random.random() < 0.9 else write(random, value)
    if random.random() < 0.15:
        body = spoil_bytes(random, body)
    if random.random() < 0.2:
        headers += spoil_headers(random)
    if random.random() < 0.1:
        method, path = spoil_path(random, method, path)
    if random.random() < 0.003:
        body += b" " * MAX_BODY_BYTES
    patience = random.randint(1, 6) if random.random() < 0.05 else None
    return Sent(method, path, headers, body, whole=random.random() > 0.03, patience=patience)


def judge(sent: Sent, received: Received, failed: bool) -> None:
    """See that an answer is one that a client may expect.

    Args:
        failed: whether an engine did, which may be told by 5xx or a stream that breaks.

    Raises:
        AssertionError: it is not.
    """
    status, path = received.status, sent.path.partition("?")[0]
    assert b"Internal error" not in received.body, "a bug"
    if not sent.whole or sent.patience is not None:
        assert status < 500 or failed, f"{status}: {received.body[:300]!r}"
        return
    assert status, "no answer"
    assert 200 <= status < 500 or failed, f"{status}: {received.body[:300]!r}"
    assert received.ended or failed, "the answer broke off"
    assert received.headers["x-request-id"]
    if status in (429, 503):
        assert all(name in received.headers for name in ("retry-after", "retry-after-ms", "x-amz-retry-after"))
    if received.ended:
        check_response(sent.method, path, status, received.headers, received.body)
        if path.startswith(("/v1/", "/openai/v1/")):
            _judge_openai(path, received)


def _judge_openai(path: str, received: Received) -> None:
    if received.status != 200:
        error = msgspec.json.decode(received.body)["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["message"]
        return
    streamed = received.headers["content-type"] == "text/event-stream"
    checks: dict[str, Any] = {
        r".*/chat/completions": (openai_shape.chat, openai_shape.chat_chunks),
        r".*/v1/completions": (openai_shape.completion, openai_shape.completion_chunks),
        r".*/responses": (openai_shape.response, openai_shape.response_events),
    }
    for pattern, check in checks.items():
        if re.fullmatch(pattern, path):
            check[streamed](received.body)


async def explore(front: Front, numbers: Iterable[int]) -> Findings:
    """Send the requests of these numbers, one after another; the first ten that go wrong end it."""
    findings = Findings()
    for number in numbers:
        try:
            _, received = await front.run(number)
            findings.statuses[str(received.status or "left")] += 1
            findings.slowest_s = max(findings.slowest_s, (received.took_s, number))
        except (AssertionError, TimeoutError, ValueError, KeyError, RuntimeError) as error:
            findings.wrong.append((number, f"{type(error).__name__}: {str(error)[:500]}"))
        if len(findings.wrong) == 10:
            break
    return findings


def held() -> tuple[int, int]:
    """Objects that the garbage collector knows after it ran, and bytes of memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(gc.get_objects()), pages * 4096
