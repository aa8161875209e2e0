"""Streams from an emulated pair, and what of the device's speed reaches a client.

python -m bench.streams                        one stream read by an unmodified openai client, and 24 at once
python -m bench.streams --streams 24 --rounds 3 --tokens 4096
python -m bench.streams --prefill h100 --decode b200 --streams 64 --rounds 1

Every token is one letter, so that those in an event can be counted. What the profile allows is the catalogue's time of
a step of that many sequences at their lengths; it is compared with the time while all streams are running. The client
of many streams reads raw sockets and looks at what it read when all is over.
"""

import argparse
import json
import os
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench.deployment import deployment
from twinfer.core.config import EmulationConfig
from twinfer.devices.placement import Work
from twinfer.devices.step_time import step_seconds
from twinfer.engine.step_times import device_times

LETTERS = 97
"""Ids of the demo tokenizer below which every token is one letter, but for three without text."""
ONE_STREAM_BAR = 2800.0
SHARE_BAR = 0.95
EVENT_BAR = 4


@dataclass(slots=True)
class Stream:
    """What one client read, and when."""

    sock: socket.socket
    parts: list[tuple[float, bytes]] = field(default_factory=list)

    def events(self) -> Iterator[tuple[float, int]]:
        """Time and letters of every event with text."""
        rest = b""
        for when, data in self.parts:
            rest += data
            while (end := rest.find(b"\n\n")) >= 0:
                event, rest = rest[: end + 2], rest[end + 2 :]
                start = event.find(b"data: {")
                choices = json.loads(event[start + 6 :])["choices"] if start >= 0 else ()
                if choices and (text := choices[0]["delta"].get("content")):
                    yield when, len(text)


def chat_body(model: str, words: int, tokens: int) -> dict[str, object]:
    """A question of about so many tokens."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": " ".join(["and"] * words)}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def read_streams(url: str, bodies: Sequence[dict[str, object]]) -> list[Stream]:
    """Ask all at once, and read until each has ended."""
    address = urlsplit(url)
    selector, streams = selectors.DefaultSelector(), []
    for body in bodies:
        data = json.dumps(body | {"ignore_eos": True}).encode()
        sock = socket.create_connection((address.hostname, address.port))
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n" % len(data) + data
        )
        sock.setblocking(False)
        streams.append(Stream(sock))
        selector.register(sock, selectors.EVENT_READ, streams[-1])
    left = len(streams)
    while left:
        for key, _ in selector.select():
            stream: Stream = key.data
            if data := stream.sock.recv(1 << 16):
                stream.parts.append((time.perf_counter(), data))
            else:
                selector.unregister(stream.sock)
                stream.sock.close()
                left -= 1
    return streams


@dataclass(frozen=True, slots=True)
class Reading:
    """What many streams came to while all of them ran.

    Attributes:
        tokens_per_s: of all of them.
        letters: in each event.
    """

    tokens_per_s: float
    letters: list[int]


def reading(streams: Sequence[Stream]) -> Reading:
    """From when the last one has begun to when the first one ends; letters are scaled to tokens, some have no text."""
    told = [list(stream.events()) for stream in streams]
    begin, end = max(events[0][0] for events in told), min(events[-1][0] for events in told)
    seen = [letters for events in told for when, letters in events if begin < when <= end]
    return Reading(sum(seen) * LETTERS / (LETTERS - 3) / (end - begin), seen)


def openai_rate(url: str, body: dict[str, object]) -> float:
    """Tokens per second after the first event, as an unmodified client sees them."""
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    times, letters, used = list[float](), list[int](), 0
    for chunk in client.chat.completions.create(**body, extra_body={"ignore_eos": True}):  # type: ignore[call-overload]
        if chunk.usage is not None:
            used = chunk.usage.completion_tokens
        elif text := chunk.choices[0].delta.content:
            times.append(time.perf_counter())
            letters.append(len(text))
    return float(used * (1 - letters[0] / sum(letters)) / (times[-1] - times[0]))


def allowed_rate(options: argparse.Namespace, streams: int) -> float:
    """Tokens per second that the profile allows that many streams, on average over their lengths."""
    emulation = EmulationConfig(device=options.decode, model_shape=options.model_shape, time_scale=options.time_scale)
    times = device_times(emulation, Path())
    contexts = range(options.prompt_tokens, options.prompt_tokens + options.tokens, max(1, options.tokens // 16))
    steps = [
        step_seconds(times.profile, times.shape, times.placement, [Work(1, context)] * streams) for context in contexts
    ]
    return streams / statistics.mean(steps) / times.scale


def cpu_seconds() -> dict[str, float]:
    """CPU time so far, by process: this one, and those that it started."""
    found = {"client": time.process_time()}
    waiting = [os.getpid()]
    while waiting:
        children = Path(f"/proc/{waiting[0]}/task/{waiting[0]}/children").read_text().split()
        waiting = [*waiting[1:], *map(int, children)]
        for child in children:
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            name = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[2].decode()
            ticks = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            found[f"{name} {child}"] = ticks
    return found


def measure_one(options: argparse.Namespace, model: str, url: str) -> bool:
    """One stream at a time, by openai's client."""
    allowed = allowed_rate(options, 1)
    body = chat_body(model, options.prompt_tokens, options.tokens)
    rates = [openai_rate(url, body) for _ in range(options.rounds)]
    best, middle = max(rates), statistics.median(rates)
    print(f"openai client, one stream: {middle:,.0f} tokens/s ({best:,.0f} at best) of {allowed:,.0f}", flush=True)
    return bool(middle >= ONE_STREAM_BAR / options.time_scale)


def measure_many(options: argparse.Namespace, model: str, url: str) -> bool:
    """All streams at once."""
    allowed, passed = allowed_rate(options, options.streams), []
    for _ in range(options.rounds):
        bodies = [chat_body(model, options.prompt_tokens - n % 8, options.tokens) for n in range(options.streams)]
        before = cpu_seconds()
        found = reading(read_streams(url, bodies))
        after, tokens = cpu_seconds(), options.streams * options.tokens
        share, middle = found.tokens_per_s / allowed, statistics.median(found.letters)
        print(
            f"{options.streams} streams: {found.tokens_per_s:,.0f} tokens/s, {share:.1%} of {allowed:,.0f}; "
            f"tokens per event: median {middle:g}, mean {statistics.mean(found.letters):.1f}, "
            f"most {max(found.letters)}; CPU per token in us: "
            + ", ".join(f"{name.split()[0]} {(after[name] - before[name]) / tokens * 1e6:.1f}" for name in before),
            flush=True,
        )
        passed.append(share >= SHARE_BAR and middle <= EVENT_BAR)
    return sum(passed) * 2 > len(passed)


def main() -> int:
    """Start, measure, print; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefill", default="trn3", help="device (default: trn3)")
    parser.add_argument("--decode", default="cs3", help="device (default: cs3)")
    parser.add_argument("--model-shape", default="gpt-oss-120b", help="(default: gpt-oss-120b)")
    parser.add_argument("--kv", choices=["real", "virtual"], default="virtual", help="(default: virtual)")
    parser.add_argument("--time-scale", type=float, default=1.0, help="stretches all times (default: 1)")
    parser.add_argument("--streams", type=int, default=24, help="at once (default: 24)")
    parser.add_argument("--tokens", type=int, default=4096, help="of each answer (default: 4096)")
    parser.add_argument("--prompt-tokens", type=int, default=200, help="about (default: 200)")
    parser.add_argument("--rounds", type=int, default=5, help="of each kind (default: 5)")
    parser.add_argument("--only", choices=["one", "many"], help="one kind only")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="passed on to twinfer serve")
    options = parser.parse_args()
    settings = [f"pool.{pool}.emulation.draw_below={LETTERS}" for pool in ("prefill", "decode")]
    command = ["--prefill", options.prefill, "--decode", options.decode, "--model-shape", options.model_shape]
    command += ["--time-scale", str(options.time_scale), "--kv", options.kv]
    for setting in settings + options.set:
        command += ["--set", setting]
    passed = []
    with deployment(command) as (model, url):
        if options.only != "many":
            passed.append(measure_one(options, model, url))
        if options.only != "one":
            passed.append(measure_many(options, model, url))
    print("both bars are met" if all(passed) else "a bar is missed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
