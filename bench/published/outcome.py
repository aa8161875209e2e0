"""What a cell says: goodput first, and the times behind it."""

from collections.abc import Callable
from dataclasses import dataclass

from twinfer.loadtest.result import Result, Trial
from twinfer.loadtest.slo import Objectives
from twinfer.loadtest.statistics import Distribution, Estimate, share
from twinfer.loadtest.summary import measured


@dataclass(frozen=True, slots=True)
class Outcome:
    """One system under one workload.

    Attributes:
        goodput: requests per second within the objectives, of those offered in the time of offering; of a search the
            highest rate that holds them for 90 %, 0 where none did. With the interval in which it lies.
        interactive: the same with faster answers (``Workload.interactive``); ``None`` of a search, which looked for
            another rate than theirs.
        attained: share within the objectives.
        errors: requests without a whole answer, of ``requests``.
        doubt: why the numbers do not count, "" if they do.
    """

    goodput: Estimate
    interactive: Estimate | None
    attained: float
    ttft: Distribution | None
    tpot: Distribution | None
    itl: Distribution | None
    tokens_per_s: float
    requests: int
    errors: int
    doubt: str = ""


Measure = Callable[[Outcome], Estimate | None]
"""What systems are compared by; ``None`` where it was not measured."""


def standard(found: Outcome) -> Estimate | None:
    """By the objectives that a workload states."""
    return found.goodput


def interactive(found: Outcome) -> Estimate | None:
    """By those that ask for faster answers."""
    return found.interactive


def outcome(result: Result, faster: Objectives) -> Outcome:
    """Of a run with objectives, held against the faster ones as well."""
    trial = result.main
    found = trial.summary
    assert found.attained is not None
    return Outcome(
        goodput=_searched(result) if result.searched else _goodput(trial, found.attained),
        interactive=None if result.searched else _goodput(trial, _attained(trial, faster, result.seed)),
        attained=found.attained.value,
        ttft=found.ttft,
        tpot=found.tpot,
        itl=found.itl,
        tokens_per_s=found.output_tokens_per_s,
        requests=found.requests,
        errors=sum(found.errors.values()),
        doubt=trial.invalid or trial.stopped,
    )


def _attained(trial: Trial, objectives: Objectives, seed: int) -> Estimate:
    return share([objectives.kept(one) for one in measured(trial.records)], seed)


def _goodput(trial: Trial, attained: Estimate) -> Estimate:
    """Per second of offering: the wait for the last answers is nobody's fault."""
    window_s = (trial.load.max_s or trial.summary.duration_s) - trial.load.warmup_s
    offered = trial.summary.requests / window_s if window_s > 0 else 0.0
    return Estimate(attained.value * offered, attained.low * offered, attained.high * offered)


def _searched(result: Result) -> Estimate:
    """Between the highest rate that held and the lowest that did not."""
    best = result.best_rate or 0.0
    return Estimate(best, best, min((one.load.rate for one in result.trials if one.load.rate > best), default=best))
