"""``twinfer roll``: changes the weights of a deployment that runs on this machine."""

import argparse
import asyncio
import sys
from pathlib import Path

from twinfer.cluster.deployment import find_record
from twinfer.cluster.orders import Roll, give_order
from twinfer.core.errors import ConfigError
from twinfer.core.ids import ModelId

EXIT_INTERRUPTED = 130


def run(arguments: argparse.Namespace) -> int:
    """Have it done, and show how it gets on; 0 when it is done."""
    if arguments.drain is not None and arguments.drain <= 0:
        raise ConfigError(f"--drain is {arguments.drain:g}; it is a time in seconds above 0")
    source = arguments.source or ""
    if source and Path(source).expanduser().is_dir():
        source = str(Path(source).expanduser().resolve())
    order = Roll(source, ModelId(arguments.model or ""), tuple(arguments.set), arguments.drain, arguments.in_place)
    directory = find_record(arguments.port).parent
    try:
        asyncio.run(give_order(directory, order, lambda text: print(text, flush=True)))
    except KeyboardInterrupt:
        print("the deployment goes on with it; see its own terminal", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0
