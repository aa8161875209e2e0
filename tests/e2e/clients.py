"""The clients that people use, and what they hear."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import openai
from botocore.config import Config as ClientConfig

from twinfer.chaos.oracle import Drawn

ROUTE_HEADER = "x-twinfer-route"


@dataclass(slots=True)
class Heard:
    """One answer of a chat completion.

    Attributes:
        drawn: its tokens, with the two best at each place.
        route: the response header.
        usage, journey: the last chunk's ``usage`` and ``twinfer`` objects.
        finish: the finish reason.
    """

    text: str = ""
    drawn: list[Drawn] = field(default_factory=list)
    route: str = ""
    usage: Any = None
    journey: dict[str, Any] = field(default_factory=dict)
    finish: str | None = None

    @property
    def tokens(self) -> list[bytes]:
        """The bytes of each token."""
        return [drawn.token for drawn in self.drawn]


@contextlib.asynccontextmanager
async def openai_client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client as most people make one, except that it never asks twice."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@contextlib.contextmanager
def bedrock_client(url: str) -> Iterator[Any]:
    """A client as most people make one, except that it never asks twice."""
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=ClientConfig(retries={"total_max_attempts": 1}),
    )
    with contextlib.closing(client):
        yield client


async def opened(client: openai.AsyncOpenAI, model: str, prompt: Any, max_tokens: int, **options: Any) -> Any:
    """A running greedy stream; ``route`` forces one, other options go into the body."""
    route = options.pop("route", None)
    return await client.chat.completions.create(
        model=model,
        messages=prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}],
        max_tokens=max_tokens,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers={} if route is None else {ROUTE_HEADER: route},
        extra_body=options,
    )


async def take(stream: Any, heard: Heard, num_tokens: int) -> Heard:
    """Read until so many tokens were heard in all."""
    while len(heard.drawn) < num_tokens:
        _absorb(await anext(stream), heard)
    return heard


async def finish(stream: Any, heard: Heard | None = None) -> Heard:
    """Read a stream to its end."""
    heard = heard or Heard()
    async for chunk in stream:
        _absorb(chunk, heard)
    heard.route = stream.response.headers[ROUTE_HEADER]
    await stream.close()
    return heard


async def chat(client: openai.AsyncOpenAI, model: str, prompt: Any, max_tokens: int, **options: Any) -> Heard:
    """A whole greedy answer, streamed."""
    return await finish(await opened(client, model, prompt, max_tokens, **options))


def _absorb(chunk: Any, heard: Heard) -> None:
    for choice in chunk.choices:
        heard.text += choice.delta.content or ""
        heard.finish = choice.finish_reason or heard.finish
        for entry in choice.logprobs.content if choice.logprobs else ():
            best = tuple((bytes(top.bytes), top.logprob) for top in entry.top_logprobs)
            heard.drawn.append(Drawn(bytes(entry.bytes), best))
    heard.usage = chunk.usage or heard.usage
    heard.journey = (chunk.model_extra or {}).get("twinfer") or heard.journey
