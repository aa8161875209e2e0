"""A worker process, from start to end.

1. Pin to its cores, build the engine, start the transports and the control plane; say ``ready`` on standard output.
2. Serve until a signal comes, standard input ends (the launcher is gone), or the engine's thread dies.
3. Stop in the order in which things depend on each other: control plane, reclaimer, engine, transports, memory.
"""

import asyncio
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from twinfer.core.capabilities import WorkerIdentity
from twinfer.core.clock import MonotonicClock
from twinfer.core.config import LinkConfig
from twinfer.core.errors import TwinferError
from twinfer.core.ids import new_epoch
from twinfer.kv.memory import PoolMemory
from twinfer.transport.base import KVSource
from twinfer.transport.gate import Pace
from twinfer.transport.host import host_id
from twinfer.transport.shm import ShmSink, ShmSource
from twinfer.transport.tcp.sink import TcpSink
from twinfer.transport.tcp.source import TcpSource
from twinfer.transport.throttle import Throttle, unlimited
from twinfer.worker.build import build_engine
from twinfer.worker.context import WorkerContext
from twinfer.worker.engine_thread import EngineThread
from twinfer.worker.reclaimer import Reclaimer
from twinfer.worker.service import Sessions, WorkerService
from twinfer.worker.sink_desk import SinkDesk
from twinfer.worker.sink_link import SinkLinks
from twinfer.worker.source_desk import SourceDesk
from twinfer.worker.spec import Notice, WorkerSpec
from twinfer.worker.transports import Sinks, Sources

logger = logging.getLogger(__name__)
EXIT_CONFIG = 2
EXIT_CRASHED = 70


def run_worker(spec: WorkerSpec, cluster_key: bytes, *, watch_stdin: bool) -> int:
    """Run until told to stop; returns the exit code."""
    if spec.cores:
        os.sched_setaffinity(0, spec.cores)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=f"{spec.worker}: %(message)s")
    try:
        return asyncio.run(_serve(spec, cluster_key, watch_stdin=watch_stdin))
    except TwinferError as error:
        _notify(Notice(error=str(error)))
        return EXIT_CONFIG
