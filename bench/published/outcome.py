"""What a cell says: goodput first, and the times behind it."""

from dataclasses import dataclass

from twinfer.loadtest.result import Result, Trial
from twinfer.loadtest.statistics import Distribution, Estimate


@dataclass(frozen=True, slots=True)
class Outcome:
    """One system under one workload.

    Attributes:
        goodput: requests per second within the objectives, of those offered in the time of offering; of a search the
            highest rate that holds them for 90 %, 0 where none did. With the interval in which it lies.
        attained: share within the objectives.
        errors: requests without a whole answer, of ``requests``.
        doubt: why the numbers do not count, "" if they do.
    """

    goodput: Estimate
    attained: float
    ttft: Distribution | None
    tpot: Distribution | None
    itl: Distribution | None
    tokens_per_s: float
    requests: int
    errors: int
    doubt: str = ""


def outcome(result: Result) -> Outcome:
    """Of a run with objectives."""
    trial = result.main
    found = trial.summary
    assert found.attained is not None
    return Outcome(
        goodput=_searched(result) if result.searched else _goodput(trial, found.attained),
        attained=found.attained.value,
        ttft=found.ttft,
        tpot=found.tpot,
        itl=found.itl,
        tokens_per_s=found.output_tokens_per_s,
        requests=found.requests,
        errors=sum(found.errors.values()),
        doubt=trial.invalid or trial.stopped,
    )


def _goodput(trial: Trial, attained: Estimate) -> Estimate:
    """Per second of offering: the wait for the last answers is nobody's fault."""
    window_s = (trial.load.max_s or trial.summary.duration_s) - trial.load.warmup_s
    offered = trial.summary.requests / window_s if window_s > 0 else 0.0
    low, high = max(0.0, attained.low), min(1.0, attained.high)
    return Estimate(attained.value * offered, low * offered, high * offered)


def _searched(result: Result) -> Estimate:
    """Between the highest rate that held and the lowest that did not."""
    best = result.best_rate or 0.0
    return Estimate(best, best, min((one.load.rate for one in result.trials if one.load.rate > best), default=best))
