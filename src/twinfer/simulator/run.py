"""One simulation from a trace to its record."""

from collections.abc import Callable, Iterator, Sequence

from twinfer.core.traces import TraceRequest
from twinfer.simulator.cluster import Cluster
from twinfer.simulator.recorder import Recorder
from twinfer.simulator.scenario import Scenario
from twinfer.simulator.schedule import Schedule

BINS = 240
"""Of the time that requests arrive in."""


def simulate(
    scenario: Scenario,
    trace: Sequence[TraceRequest],
    progress: Callable[[int], None] | None = None,
    enough: Callable[[Recorder, float], bool] | None = None,
) -> Recorder:
    """Replay a trace until nothing is left to happen.

    Args:
        scenario: the deployment and what befalls it.
        trace: in order of arrival.
        progress: told how many requests have arrived.
        enough: asked with each request, at that time, whether what was recorded so far tells all that is wanted: then
            the rest does not happen.

    Raises:
        ConfigError: a failure names a worker that is not there.
    """
    recorder, _ = replay(scenario, trace, progress, enough)
    return recorder


def replay(
    scenario: Scenario,
    trace: Sequence[TraceRequest],
    progress: Callable[[int], None] | None = None,
    enough: Callable[[Recorder, float], bool] | None = None,
) -> tuple[Recorder, Cluster]:
    """The same, with the deployment as it was left."""
    schedule = Schedule()
    recorder = Recorder(max(trace[-1].arrival_s, 1.0) / BINS)
    cluster = Cluster(scenario, schedule, recorder)
    if scenario.config.elastic.enabled:
        last_s, gateway = trace[-1].arrival_s, cluster.gateway
        cluster.shaper.look(lambda: schedule.now() > last_s and not gateway.is_busy)
    arrivals = iter(enumerate(trace))

    def arrive(number: int, asked: TraceRequest) -> None:
        if enough is not None and enough(recorder, schedule.now()):
            schedule.stop()
            return
        cluster.gateway.arrive(number, asked)
        if progress is not None:
            progress(number + 1)
        _next_arrival(schedule, arrivals, arrive)

    _next_arrival(schedule, arrivals, arrive)
    schedule.run()
    for incarnation in cluster.incarnations:
        incarnation.finish()
    return recorder, cluster


def _next_arrival(
    schedule: Schedule, arrivals: Iterator[tuple[int, TraceRequest]], arrive: Callable[[int, TraceRequest], None]
) -> None:
    """One after the other, so that the queue of events holds no more than what is under way."""
    found = next(arrivals, None)
    if found is not None:
        schedule.at(found[1].arrival_s, arrive, *found)
