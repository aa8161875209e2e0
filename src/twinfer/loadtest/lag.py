"""Whether the client kept up with itself: what it was to send, when it sent it, and how long its loop was deaf."""

import asyncio
import time
from collections.abc import Sequence

import msgspec

from twinfer.core.clock import Clock
from twinfer.loadtest.record import Record
from twinfer.loadtest.statistics import percentile

TICK_S = 0.02


class Lag(msgspec.Struct, frozen=True):
    """The client's own delays, in seconds; they are in every measured latency.

    Args:
        send_p50_s, send_p99_s, send_max_s: from when a request was due to when it began.
        loop_p99_s, loop_max_s: how late the event loop woke from short sleeps: what arrives is noticed as much later.
        cpu_share: of one core, that the client used.
    """

    send_p50_s: float = 0.0
    send_p99_s: float = 0.0
    send_max_s: float = 0.0
    loop_p99_s: float = 0.0
    loop_max_s: float = 0.0
    cpu_share: float = 0.0

    def complaint(self, limit_s: float) -> str:
        """One sentence if the client was too slow for its measurements to count, else ""."""
        late = max(self.send_p99_s, self.loop_p99_s)
        if late <= limit_s:
            return ""
        what = "requests were sent" if self.send_p99_s == late else "the client's event loop was"
        return (
            f"1 % of the time {what} {late * 1e3:.1f} ms late or more, {limit_s * 1e3:g} ms are allowed: "
            "the client's machine is too slow or too busy; use another one, or a lower rate"
        )


def lag_of(records: Sequence[Record], delays_s: Sequence[float], cpu_share: float) -> Lag:
    """Sum up a run."""
    late = sorted(record.lag_s for record in records)
    deaf = sorted(delays_s)
    return Lag(
        send_p50_s=percentile(late, 50),
        send_p99_s=percentile(late, 99),
        send_max_s=late[-1] if late else 0.0,
        loop_p99_s=percentile(deaf, 99),
        loop_max_s=deaf[-1] if deaf else 0.0,
        cpu_share=cpu_share,
    )


class LoopWatch:
    """Notes how late the running event loop wakes, and what CPU time this process uses."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.delays_s: list[float] = []
        self._cpu_s, self._began_s = time.process_time(), clock.now()
        self._task = asyncio.create_task(self._watch())

    def stop(self) -> float:
        """End; returns the share of one core that was used."""
        self._task.cancel()
        wall_s = self._clock.now() - self._began_s
        return (time.process_time() - self._cpu_s) / wall_s if wall_s > 0 else 0.0

    async def _watch(self) -> None:
        while True:
            due_s = self._clock.now() + TICK_S
            await asyncio.sleep(TICK_S)
            self.delays_s.append(max(0.0, self._clock.now() - due_s))
