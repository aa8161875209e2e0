"""The invocation log: a line of JSON for each request, with what was said only where the operator wants that."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from twinfer.core.config import Config
from twinfer.core.errors import ConfigError
from twinfer.usage.record import UsageRecord


class Said(msgspec.Struct, frozen=True):
    """What was said in a call: the request's body and the answers' texts."""

    body: bytes
    answers: tuple[str, ...]


class Line(msgspec.Struct, frozen=True):
    """One request, to be logged; ``said`` is left out unless prompts are wanted."""

    record: UsageRecord
    said: Said | None = None


class InvocationLog:
    """Writes lines to the file's end. Blocking."""

    def __init__(self, config: Config) -> None:
        self._path = Path(config.invocation_log.file)
        self._gateway = config.gateway

    def write(self, lines: Sequence[Line]) -> None:
        """All of them, in one piece.

        Raises:
            ConfigError: the file cannot be written.
        """
        text = b"".join(msgspec.json.encode(self._fields(line)) + b"\n" for line in lines)
        try:
            if not self._path.exists():
                self._path.touch(mode=0o600)
            with self._path.open("ab", buffering=0) as file:
                file.write(text)
        except OSError as error:
            raise ConfigError(f"the invocation log {self._path} cannot be written: {error.strerror}") from error

    def _fields(self, line: Line) -> dict[str, Any]:
        record, said = line.record, line.said
        user = f"user/{record.tenant}/{record.key_id}" if record.key_id else f"user/{record.tenant}"
        tokens = record.tokens
        asked: dict[str, Any] = {
            "inputContentType": "application/json",
            "inputTokenCount": tokens.input,
            "cacheReadInputTokenCount": tokens.cache_read,
            "cacheWriteInputTokenCount": tokens.cache_write,
        }
        answered: dict[str, Any] = {"outputContentType": "application/json", "outputTokenCount": tokens.output}
        if said is not None:
            asked["inputBodyJson"] = msgspec.Raw(said.body)
            answered["outputBodyJson"] = {"texts": said.answers}
        return {
            "schemaType": "ModelInvocationLog",
            "schemaVersion": "1.0",
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.at_ms / 1000)),
            "accountId": self._gateway.account,
            "region": self._gateway.region,
            "requestId": record.request_id,
            "operation": record.operation,
            "modelId": record.model,
            "identity": {"arn": f"arn:aws:iam::{self._gateway.account}:{user}"},
            "status": record.status.value,
            "input": asked,
            "output": answered,
        }
