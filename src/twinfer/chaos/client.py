"""A client of the gateway: asks one question as OpenAI's clients do, and notes all that it hears."""

import json
import uuid
from typing import Any

import httpx

from twinfer.chaos.judge import Ending, Heard, Refusal
from twinfer.chaos.oracle import Drawn
from twinfer.chaos.prompts import Question

_DATA = "data: "
_DONE = "[DONE]"


def open_client(url: str, patience_s: float) -> httpx.AsyncClient:
    """A client without proxies, whose every request has a connection of its own."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=url, timeout=patience_s, limits=limits, trust_env=False)


def fresh_salt() -> str:
    """One that nobody used: the prompt's KV is computed and handed over anew, whatever the caches hold."""
    return uuid.uuid4().hex


async def ask(client: httpx.AsyncClient, model: str, question: Question, salt: str, heard: Heard) -> None:
    """Stream a greedy answer into ``heard``, to whatever end; only requests with the same salt share KV."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question.text}],
        "max_tokens": question.max_tokens,
        "ignore_eos": question.ignore_eos,
        "temperature": 0,
        "cache_salt": salt,
        "logprobs": True,
        "top_logprobs": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code == httpx.codes.OK:
                async for line in response.aiter_lines():
                    absorb(line, heard)
            else:
                heard.refusal = _refusal(response.status_code, await response.aread())
                heard.ending = Ending.REFUSED
    except httpx.TimeoutException:
        heard.ending = Ending.STUCK
    except httpx.TransportError as error:
        if heard.refusal is None:
            heard.ending, heard.reason = Ending.BROKEN, str(error) or type(error).__name__
    except (ValueError, KeyError):  # no event of this API: what follows the part heard so far is unknown
        heard.ending = Ending.CUT_SHORT


def absorb(line: str, heard: Heard) -> None:
    """Take in one line of an event stream."""
    if not line.startswith(_DATA):
        return
    payload = line.removeprefix(_DATA)
    if payload == _DONE:
        heard.ending = Ending.WHOLE
        return
    event = json.loads(payload)
    if "error" in event:
        heard.refusal = _named(httpx.codes.OK, event["error"])
        heard.ending = Ending.REFUSED
        return
    for choice in event["choices"]:
        heard.text += choice["delta"].get("content") or ""
        heard.finish = choice["finish_reason"] or heard.finish
        for entry in (choice["logprobs"] or {}).get("content") or ():
            heard.drawn.append(_drawn(entry))
    if usage := event.get("usage"):
        heard.usage = (usage["prompt_tokens"], usage["completion_tokens"])
    heard.transfer_bytes = event.get("twinfer", {}).get("transfer_bytes", heard.transfer_bytes)


def _drawn(entry: dict[str, Any]) -> Drawn:
    best = tuple((bytes(top["bytes"]), float(top["logprob"])) for top in entry["top_logprobs"])
    return Drawn(bytes(entry["bytes"]), best)


def _refusal(status: int, body: bytes) -> Refusal:
    try:
        return _named(status, json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return Refusal(status, "", body.decode(errors="replace"))


def _named(status: int, error: dict[str, Any]) -> Refusal:
    return Refusal(status, str(error.get("code") or ""), str(error.get("message") or ""))
