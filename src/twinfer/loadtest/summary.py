"""From the records of a run to what it says: distributions with intervals, rates, errors, goodput, costs."""

import itertools
from collections import Counter
from collections.abc import Sequence

import msgspec

from twinfer.loadtest.prices import Costs, Prices, costs
from twinfer.loadtest.record import Record
from twinfer.loadtest.slo import Objectives
from twinfer.loadtest.statistics import Distribution, Estimate, distribution, share


class Summary(msgspec.Struct, frozen=True):
    """One run in numbers. Times in seconds.

    Args:
        requests: measured, errors included.
        errors: by kind.
        duration_s: from the first request measured to the last end.
        ttft, itl, tpot, e2e: see ``record.py``; a gap of ``itl`` lies between two arrivals of text, however many tokens
            came with one.
        input_tokens, output_tokens: in all, as the server counted, else by events.
        counted_tokens: events with text.
        tokens_per_arrival: output tokens over arrivals: above 1, tokens came together.
        reported: the server counts tokens itself.
        requests_per_s, output_tokens_per_s: of answers without errors.
        user_tokens_per_s: speed that the median user sees after the first token, 1 / TPOT.
        attained: share of the requests that kept the objectives; ``None`` without objectives.
        goodput_per_s: requests per second that kept them.
        routes: answers by the way the server says they went.
    """

    requests: int
    errors: dict[str, int]
    duration_s: float
    ttft: Distribution | None
    itl: Distribution | None
    tpot: Distribution | None
    e2e: Distribution | None
    input_tokens: int
    output_tokens: int
    counted_tokens: int
    tokens_per_arrival: float
    reported: bool
    requests_per_s: float
    output_tokens_per_s: float
    user_tokens_per_s: float
    attained: Estimate | None
    goodput_per_s: float | None
    routes: dict[str, int]
    costs: Costs | None

    @property
    def error_share(self) -> float:
        """Of the requests."""
        return sum(self.errors.values()) / self.requests if self.requests else 0.0


def measured(records: Sequence[Record]) -> list[Record]:
    """Those that count, in the order in which they were due."""
    return sorted((one for one in records if not one.warmup), key=lambda one: (one.due_s, one.session, one.turn))


def gaps_s(record: Record) -> list[float]:
    """From each arrival of text to the next one."""
    moments = record.arrivals_us
    return [(after - before) * 1e-6 for before, after in itertools.pairwise(moments)]


def summarise(records: Sequence[Record], objectives: Objectives, prices: Prices | None, seed: int) -> Summary:
    """Sum up.

    Args:
        records: of the run, in any order.
        objectives: what a good request keeps.
        prices: for the costs, if known.
        seed: of the resampling behind the intervals.
    """
    every = measured(records)
    good = [one for one in every if one.error is None]
    duration_s = max((one.end_s for one in every), default=0.0) - min((one.sent_s for one in every), default=0.0)
    output = sum(one.tokens for one in good)
    given = sum(one.prompt_tokens or 0 for one in good)
    tpot = distribution([[one.tpot_s] for one in good if one.tpot_s is not None], seed)
    kept = [objectives.kept(one) for one in every]
    arrivals = sum(len(one.arrivals_us) for one in good)
    return Summary(
        requests=len(every),
        errors=dict(Counter(one.error.value for one in every if one.error is not None)),
        duration_s=duration_s,
        ttft=distribution([[one.ttft_s] for one in good if one.ttft_s is not None], seed),
        itl=distribution([gaps_s(one) for one in good], seed),
        tpot=tpot,
        e2e=distribution([[one.e2e_s] for one in good], seed),
        input_tokens=given,
        output_tokens=output,
        counted_tokens=sum(one.pieces for one in good),
        tokens_per_arrival=output / arrivals if arrivals else 0.0,
        reported=any(one.output_tokens is not None for one in good),
        requests_per_s=_rate(len(good), duration_s),
        output_tokens_per_s=_rate(output, duration_s),
        user_tokens_per_s=1 / tpot.p50.value if tpot is not None and tpot.p50.value > 0 else 0.0,
        attained=share(kept, seed) if objectives.any else None,
        goodput_per_s=_rate(sum(kept), duration_s) if objectives.any else None,
        routes=dict(Counter(one.route for one in good if one.route)),
        costs=None if prices is None else costs(prices, duration_s, given, output),
    )


def _rate(number: float, duration_s: float) -> float:
    return number / duration_s if duration_s > 0 else 0.0
