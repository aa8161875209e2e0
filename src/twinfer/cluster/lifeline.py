"""The child's side of being supervised: its spec comes in, its notices go out, its end comes with standard input's."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

import msgspec

from twinfer.core.errors import ConfigError
from twinfer.core.process import CLUSTER_KEY_VARIABLE, Leave, Notice

MIN_KEY_BYTES = 16
Spec = TypeVar("Spec")


def read_spec(kind: type[Spec]) -> Spec:
    """The JSON line that the launcher wrote first.

    Raises:
        ConfigError: there is none.
    """
    try:
        # Unbuffered: what the launcher says next is read from the descriptor.
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as lines:
            return msgspec.json.decode(lines.readline(), type=kind)
    except msgspec.DecodeError as error:
        raise ConfigError(f"standard input does not begin with a {kind.__name__} in JSON: {error}") from error


def cluster_key() -> bytes:
    """The key that all processes of a cluster share; it is taken out of the environment.

    Raises:
        ConfigError: it is missing, or no key.
    """
    text = os.environ.pop(CLUSTER_KEY_VARIABLE, "")
    try:
        key = bytes.fromhex(text)
    except ValueError as error:
        raise ConfigError(f"{CLUSTER_KEY_VARIABLE} is not hexadecimal; make one with: openssl rand -hex 32") from error
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(f"{CLUSTER_KEY_VARIABLE} is missing or short; make one with: openssl rand -hex 32")
    return key


def notify(notice: Notice) -> None:
    """Tell the launcher; when it is gone there is nobody to tell."""
    try:
        sys.stdout.buffer.write(msgspec.json.encode(notice) + b"\n")
        sys.stdout.buffer.flush()
    except (BrokenPipeError, ValueError):
        return


def stop_on_signals(
    stop: asyncio.Event, *, watch_stdin: bool, leave: Callable[[float], None] = lambda within_s: None
) -> None:
    """Set the event on SIGTERM, on SIGINT and, if asked to, when standard input ends.

    Args:
        leave: called with the seconds of each order to leave that is read there.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    if watch_stdin:
        descriptor, heard = sys.stdin.fileno(), bytearray()

        def said_something() -> None:
            heard.extend(news := os.read(descriptor, 4096))
            while b"\n" in heard:
                line, _, rest = bytes(heard).partition(b"\n")
                heard[:] = rest
                leave(msgspec.json.decode(line, type=Leave).within_s)
            if not news:
                loop.remove_reader(descriptor)
                stop.set()

        loop.add_reader(descriptor, said_something)
