"""Results made up from numbers, for what is computed from them."""

from collections.abc import Callable, Sequence

import numpy as np

from twinfer.loadtest.arrivals import LoadSpec
from twinfer.loadtest.lag import Lag
from twinfer.loadtest.machine import Machine
from twinfer.loadtest.record import ErrorKind, Record
from twinfer.loadtest.result import Result, Target, Trial
from twinfer.loadtest.slo import Objectives
from twinfer.loadtest.summary import summarise
from twinfer.loadtest.work import WorkSpec

MACHINE = Machine("0", "r", "3.11", "Linux", "cpu", 2, 4.0, {})


def records(count: int, seed: int, slower: float = 1.0, noise: float = 0.03) -> list[Record]:
    """Requests whose work depends on their number, and whose times on the machine's mood as well.

    The mood is a slow drift, so neighbours are alike.
    """
    work, mood = np.random.default_rng(7), np.random.default_rng(seed)
    drift, found = 0.0, []
    for number in range(count):
        drift = 0.9 * drift + mood.normal(0, noise / 2)
        pace = slower * float(np.exp(drift + mood.normal(0, noise)))
        first, gap = float(work.lognormal(-2, 0.6)) * pace, 0.02 * float(work.lognormal(0, 0.2)) * pace
        moments = [round((first + gap * index) * 1e6) for index in range(8)]
        sent_s = 0.1 * number
        found.append(
            Record(
                number,
                0,
                sent_s,
                sent_s,
                arrivals_us=moments,
                pieces=8,
                end_s=sent_s + moments[-1] * 1e-6,
                prompt_tokens=64,
                output_tokens=8,
                route="aggregated",
            )
        )
    return found


def failed(record: Record) -> Record:
    """The same request, refused."""
    record.fail(ErrorKind.REFUSED, "HTTP 429: too many")
    return record


def trial(of: Sequence[Record], load: LoadSpec = LoadSpec(rate=10.0), invalid: str = "") -> Trial:  # noqa: B008
    """A load with these records."""
    return Trial(load, summarise(of, Objectives(ttft_s=0.5), None, 0), Lag(send_p99_s=0.001), list(of), invalid)


def result(trials: Sequence[Trial], change: Callable[[Target], Target] = lambda target: target) -> Result:
    """A whole result."""
    return Result(
        name="test",
        command=["twinfer", "bench"],
        began="2026-01-01T00:00:00+00:00",
        target=change(Target("http://127.0.0.1:1", "chat", "m")),
        work=WorkSpec(),
        objectives=Objectives(ttft_s=0.5),
        prices=None,
        max_lag_s=0.01,
        seed=0,
        machine=MACHINE,
        trials=list(trials),
    )
