"""A worker that dies or hangs, in a process of its own."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rpc import worker_process
from tests.rpc.handlers import KEY, REPORT, busy, cancel
from twinfer.core.errors import WorkerLost
from twinfer.rpc.client import connect


@pytest.fixture
def worker() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """An echoing worker process, and its address."""
    command = [sys.executable, str(Path(worker_process.__file__))]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": root}
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_worker_that_dies_or_hangs_is_lost(worker: tuple[subprocess.Popen[str], str], how: signal.Signals):
    """A killed worker's closed socket, and a stopped one's missing pings, end the stream and later calls."""
    process, address = worker
    client = connect(address, KEY, keepalive_s=0.2)
    assert await client.report(30.0) == REPORT
    stream = client.gateway_stream()
    await stream.send(cancel("x"))
    assert busy("x") == await anext(stream)
    process.send_signal(how)
    async with asyncio.timeout(30):
        with pytest.raises(WorkerLost, match=address):
            await anext(stream)
    with pytest.raises(WorkerLost, match=address):
        await client.report(0.2)
    await client.close()
