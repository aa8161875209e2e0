"""A configuration twice: as a deployment of this machine, and as a scenario of the simulator."""

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.deployment import deployment
from bench.simulator_check.fit import Parameters
from bench.simulator_check.replay import Served, replay
from bench.simulator_check.workload import Asked
from twinfer.core.config import Config
from twinfer.core.config_text import dump_config
from twinfer.core.traces import TraceRequest
from twinfer.simulator.hardware import hardware
from twinfer.simulator.recorder import Journey, Recorder
from twinfer.simulator.run import simulate
from twinfer.simulator.scenario import Overheads, Scenario


@dataclass(frozen=True, slots=True)
class Stack:
    """What is compared with itself.

    Attributes:
        cache_dir: with prepared weights, and with a profile of this machine where one is needed.
        letter: the token of which all answers are made.
    """

    config: Config
    cache_dir: Path
    letter: int

    @contextlib.contextmanager
    def serving(self) -> Iterator[Callable[[Sequence[Asked]], list[Served]]]:
        """A deployment, as long as the context lasts: what it is asked, it answers in real time."""
        config = msgspec.structs.replace(self.config, cache_dir=str(self.cache_dir))
        seeds = itertools.count()
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(dump_config(config))
            file.flush()
            with deployment(["--config", file.name]) as (model, url):
                yield lambda asked: replay(url, model, asked, next(seeds), self.letter)

    def busy(self, asked: Sequence[Asked], seconds: float) -> float:
        """The share of that time that the busiest worker is in steps, as simulated by the profile alone."""
        served = [Served(one.at_s, one.words, one.tokens, 0.0, 0.0) for one in asked]
        workers = self._record(served, Parameters()).workers.values()
        return max(worker.busy.total for worker in workers) / seconds

    def simulated(self, served: Sequence[Served], parameters: Parameters) -> list[Journey]:
        """The same requests, as long as the server counted them and when they were sent, through the simulator."""
        return self._record(served, parameters).journeys

    def _record(self, served: Sequence[Served], parameters: Parameters) -> Recorder:
        config = self.config
        model, link = config.model[0], config.link.emulation
        parts = {pool.name: hardware(model, pool, self.cache_dir, {}, link) for pool in config.pool}
        times = (parameters.message_us, parameters.step_us, parameters.gateway_us)
        overheads = Overheads(*(microseconds * 1e-6 for microseconds in times))
        trace = [
            TraceRequest(one.at_s, one.prompt_tokens, one.tokens, (number,), one.prompt_tokens)
            for number, one in enumerate(served)
        ]
        return simulate(Scenario(config, parts, overheads), trace)
