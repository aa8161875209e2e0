"""The cheapest choice of workers.

1. Every decode worker is a candidate by itself, and every pair that can pass KV; pairs are looked at among the few
   cheapest workers of either side, because what a side costs hardly depends on the other.
2. The lowest cost wins. Being late costs a request as much as making another one late: one that could still be in time
   gives way where it would make several late.
3. Within one percent aggregated wins over disaggregated, for nothing can go wrong on the way; among equals, the first
   by name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from twinfer.core.cost import Estimate, StepCost
from twinfer.core.ids import WorkerId
from twinfer.core.snapshot import WorkerState
from twinfer.router.predict import (
    Ask,
    DecodeSide,
    PrefillSide,
    aggregated,
    decode_side,
    disaggregated,
    prefill_side,
)

FEW = 4
TIE = 1.01
NO_HITS: Mapping[WorkerId, int] = MappingProxyType({})
Reaches = Callable[[WorkerState, WorkerState], bool]


@dataclass(frozen=True, slots=True)
class Choices:
    """Who may do what.

    Attributes:
        decoders: at least one.
        sources: may compute the prompt for another.
        reaches: whether a source's KV gets to a sink.
        hits: prompt tokens whose KV a worker has.
    """

    decoders: Sequence[WorkerState]
    sources: Sequence[WorkerState]
    reaches: Reaches
    hits: Mapping[WorkerId, int]


@dataclass(frozen=True, slots=True)
class Best:
    """The best choice of each kind, where there is one."""

    aggregated: Estimate | None
    disaggregated: Estimate | None

    def choose(self) -> tuple[Estimate, Estimate | None]:
        """The better one, and the other."""
        whole, split = self.aggregated, self.disaggregated
        if whole is None or split is None:
            only = whole or split
            assert only is not None
            return only, None
        return (whole, split) if whole.cost <= split.cost * TIE else (split, whole)


def cheapest(choices: Choices, ask: Ask) -> Best | None:
    """The best of each kind; ``None`` as long as no worker's costs are known."""
    costs = _costs([*choices.decoders, *choices.sources])
    if costs is None:
        return None
    computing: dict[WorkerId, PrefillSide] = {}
    for state in (*choices.decoders, *choices.sources):
        worker = state.identity.worker
        if worker not in computing:
            computing[worker] = prefill_side(state, costs[worker], choices.hits.get(worker, 0), ask)
    answering = []
    for state in choices.decoders:
        worker = state.identity.worker
        answering.append(decode_side(state, costs[worker], choices.hits.get(worker, 0), ask))
    whole = [aggregated(computing[side.state.identity.worker], side, ask) for side in answering]
    sources = [computing[state.identity.worker] for state in choices.sources]
    split = list(_pairs(sources, answering, choices.reaches, ask))
    return Best(min(whole, key=_order, default=None), min(split, key=_order, default=None))


def _pairs(sources: Sequence[PrefillSide], sinks: Sequence[DecodeSide], reaches: Reaches, ask: Ask) -> list[Estimate]:
    sources = sorted(sources, key=lambda side: (side.price(ask), side.state.identity.worker))
    sinks = sorted(sinks, key=lambda side: (side.price(ask), side.state.identity.worker))
    found: list[Estimate] = []
    looked_at = 0
    for sink in sinks:
        name = sink.state.identity.worker
        near = [source for source in sources if source.state.identity.worker != name]
        able = []
        for source in near:
            if reaches(source.state, sink.state):
                able.append(source)
                if len(able) == FEW:
                    break
        found += [disaggregated(source, sink, ask) for source in able]
        looked_at += bool(able)
        if looked_at == FEW:
            break
    return found


def _costs(states: Sequence[WorkerState]) -> dict[WorkerId, StepCost] | None:
    """Of each; one that said nothing yet is taken to be like the first one of its role that did, or of any."""
    known = [state for state in states if state.cost is not None]
    if not known:
        return None
    by_role = {state.identity.role: state.cost for state in reversed(known)}
    costs = {}
    for state in states:
        cost = state.cost or by_role.get(state.identity.role) or known[0].cost
        assert cost is not None
        costs[state.identity.worker] = cost
    return costs


def _order(estimate: Estimate) -> tuple[float, WorkerId, WorkerId]:
    return (estimate.cost, estimate.decode, estimate.prefill or WorkerId(""))
