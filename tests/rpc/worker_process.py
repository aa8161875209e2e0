"""A process with a control server that answers until it is killed: prints its address."""

import asyncio
import sys

from tests.rpc.handlers import KEY, EchoHandler
from twinfer.rpc.server import ControlServer


async def main() -> None:
    """Serve at any free port; a ping every 0.2 s keeps peers honest."""
    server = ControlServer(EchoHandler(), KEY, "127.0.0.1:0", keepalive_s=0.2)
    print(await server.start(), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
