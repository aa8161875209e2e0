"""A run as a file: all that was asked for, all that came of it, and all it takes to repeat it."""

from pathlib import Path

import msgspec

from twinfer.core.errors import ConfigError
from twinfer.loadtest.arrivals import LoadSpec
from twinfer.loadtest.lag import Lag
from twinfer.loadtest.machine import Machine
from twinfer.loadtest.prices import Prices
from twinfer.loadtest.record import Record
from twinfer.loadtest.slo import Objectives
from twinfer.loadtest.summary import Summary
from twinfer.loadtest.work import WorkSpec

FORMAT = "twinfer-bench-1"


class Target(msgspec.Struct, frozen=True):
    """Who was asked, and how; no keys.

    Args:
        api: chat, completions or converse.
        ignore_eos: answers were to be as long as they may be.
        extra: further fields of each body.
        words_per_token, overhead_tokens: how prompts were made as long as they should be (``words.py``).
    """

    url: str
    api: str
    model: str
    ignore_eos: bool = False
    extra: dict[str, object] = {}
    timeout_s: float = 120.0
    words_per_token: float = 1.0
    overhead_tokens: float = 0.0


class Trial(msgspec.Struct, frozen=True):
    """One load of a run; a search for a rate has several.

    Args:
        invalid: why the numbers do not count; "" if they do.
        stopped: why it ended before its time; "" if it did not.
        nonce: what made its texts those of no other run.
    """

    load: LoadSpec
    summary: Summary
    lag: Lag
    records: list[Record]
    invalid: str = ""
    stopped: str = ""
    nonce: int = 0


class Result(msgspec.Struct, frozen=True):
    """Everything.

    Args:
        format: of this file.
        name: what the run is called in reports.
        command: the command line; keys are never on it.
        began: date and time, in UTC.
        trials: in order; without a search one.
        best_rate: the highest rate that held the objectives, if it was searched for and found.
    """

    name: str
    command: list[str]
    began: str
    target: Target
    work: WorkSpec
    objectives: Objectives
    prices: Prices | None
    max_lag_s: float
    seed: int
    machine: Machine
    trials: list[Trial]
    searched: bool = False
    best_rate: float | None = None
    format: str = FORMAT

    @property
    def main(self) -> Trial:
        """The trial that stands for the run: at the rate that was found, or the last one."""
        at_best = [one for one in self.trials if self.best_rate is not None and one.load.rate == self.best_rate]
        return (at_best or self.trials)[-1]


def save(result: Result, path: Path) -> None:
    """Write the file.

    Raises:
        ConfigError: there is no writing there.
    """
    try:
        path.write_bytes(msgspec.json.encode(result) + b"\n")
    except OSError as error:
        raise ConfigError(f"cannot write to {str(path)!r}: {error.strerror}; choose another file") from error


def load(path: Path) -> Result:
    """Read such a file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is no result of 'twinfer bench run --json': {error}") from error
    if result.format != FORMAT or not result.trials:
        raise ConfigError(f"{path} has the format {result.format!r}, this version reads {FORMAT!r}; run it again")
    return result
