"""Which workers serve a request, and in which of the two modes.

By cost where any worker reported what its steps cost (``router/cheapest.py``); else the least loaded of each role,
split over two when the prompt is long enough. Whoever is not there, or cannot pass KV, is no candidate of either rule.
Workers with other weights are never a pair: while a model's weights are changed, both kinds of them are there.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from twinfer.core.config import RoutingConfig
from twinfer.core.errors import CapacityError, ContextOverflow, InvalidRequest, TwinferError
from twinfer.core.ids import WorkerId
from twinfer.core.request import GenerationRequest
from twinfer.core.route import Route, RouteKind
from twinfer.core.snapshot import ClusterSnapshot, WorkerState
from twinfer.router.cheapest import NO_HITS, Best, Choices, Reaches, cheapest
from twinfer.router.predict import Ask, fetch_pays_from


def choose_route(
    request: GenerationRequest,
    snapshot: ClusterSnapshot,
    routing: RoutingConfig,
    forced: RouteKind | None = None,
    excluded: Collection[WorkerId] = (),
    hits: Mapping[WorkerId, int] = NO_HITS,
) -> Route:
    """The route of one request; ``hits`` are the prompt tokens whose KV a worker has already.

    A worker excluded by an earlier failure is used again only when nobody else can do its part; a decode worker can
    do a prefill worker's, and does when it is one that is used again. A pair that cannot pass KV is not used at all,
    and one that did not hear each other a short while ago only if a client insists.

    Raises:
        CapacityError: none of the workers that could do a phase is alive.
        ContextOverflow: the prompt fits none of them.
        InvalidRequest: none of them can hold the answer to the request's grammar.
    """
    serving = _fitting(request, snapshot)
    decoders = [state for state in serving if state.identity.role.decodes]
    if not decoders:
        raise CapacityError(f"no decode worker of {request.model} is ready; try again shortly")
    sources = [state for state in serving if state.identity.role.prefills]
    if forced is RouteKind.DISAGGREGATED:
        decoders = [state for state in decoders if any(_reaching(state, sources, snapshot.mismatched))]
        if not decoders:
            raise CapacityError(f"no prefill worker of {request.model} is ready; try again shortly, or do not force it")
    decoders = _preferred(decoders, excluded)
    if routing.policy == "cost":
        kept = [state for state in sources if forced is not None or state.identity.worker not in excluded]
        route = _by_cost(request, snapshot, routing, forced, Choices(decoders, kept, _reach(snapshot, forced), hits))
        if route is not None and not (route.decode in excluded and forced is None):
            return route
    return _by_length(request, snapshot, routing, forced, (decoders, sources, excluded))


def foreseen_s(
    request: GenerationRequest,
    snapshot: ClusterSnapshot,
    routing: RoutingConfig,
    forced: RouteKind | None = None,
    hits: Mapping[WorkerId, int] = NO_HITS,
) -> float | None:
    """Seconds to the first token on the cheapest choice; ``None`` where no costs are known, or there is no choice.

    Where another rule than that of costs chooses, or the client, the request may be later than that.
    """
    try:
        by_cost = msgspec.structs.replace(routing, policy="cost")
        route = choose_route(request, snapshot, by_cost, forced, hits=hits)
    except TwinferError:
        return None  # whoever carries the request out says what is wrong with it
    return None if route.estimate is None else route.estimate.ttft_s


def _by_cost(
    request: GenerationRequest,
    snapshot: ClusterSnapshot,
    routing: RoutingConfig,
    forced: RouteKind | None,
    choices: Choices,
) -> Route | None:
    """The cheapest; ``None`` where nothing is known of costs, or no choice of the forced kind is left."""
    goals = routing.ttft_goal_ms / 1e3, routing.tpot_goal_ms / 1e3
    ask = Ask(len(request.prompt), snapshot.answers, *goals, request.tier)
    best = cheapest(choices, ask)
    if best is None:
        return None
    if forced is not None:
        only = best.aggregated if forced is RouteKind.AGGREGATED else best.disaggregated
        return None if only is None else Route(only.decode, only.prefill, "forced by the client", only)
    chosen, other = best.choose()
    return Route(chosen.decode, chosen.prefill, _why(best), chosen, other)


def _why(best: Best) -> str:
    chosen, other = best.choose()
    if other is None:
        return "no pair of workers can pass its KV" if chosen.prefill is None else "the only choice"
    if chosen.holds and not other.holds:
        return "only this holds the goals"
    if chosen.prefill is None and chosen.cost >= other.cost:
        return "a handoff gains too little"
    if chosen.holds:
        return "it costs less"
    return "it makes fewer others late" if other.holds else "it costs less, though neither holds the goals"


def _reach(snapshot: ClusterSnapshot, forced: RouteKind | None) -> Reaches:
    apart = snapshot.mismatched if forced is not None else snapshot.mismatched | snapshot.parted
    return lambda source, sink: _can_pass(source, sink, apart)


def _by_length(
    request: GenerationRequest,
    snapshot: ClusterSnapshot,
    routing: RoutingConfig,
    forced: RouteKind | None,
    among: tuple[list[WorkerState], list[WorkerState], Collection[WorkerId]],
) -> Route:
    """The least loaded decode worker, with the prefill worker with the shortest queue for a prompt that is long."""
    decoders, sources, excluded = among
    split_from = routing.least_remote_tokens
    if forced is not RouteKind.AGGREGATED and len(request.prompt) >= split_from and snapshot.parted:
        decoders = [state for state in decoders if not _is_cut_off(state, sources, snapshot)] or decoders
    sink = min(decoders, key=_decode_load)
    decode = sink.identity.worker
    heard = list(_reaching(sink, sources, snapshot.mismatched | snapshot.parted))
    prefillers = [state for state in heard if state.identity.worker not in excluded]
    if forced is not None:
        anybody = prefillers or heard or list(_reaching(sink, sources, snapshot.mismatched))
        prefill = _least_queued(anybody) if forced is RouteKind.DISAGGREGATED else None
        return Route(decode, prefill, "forced by the client")
    if routing.policy == "aggregated":
        return Route(decode, None, "routing.policy says so")
    if not prefillers:
        reason = "every prefill worker failed this request" if heard else "no prefill worker that fits reaches it"
        return Route(decode, None, reason)
    if decode in excluded:
        return Route(decode, None, "every decode worker failed this request; this one takes it alone")
    if len(request.prompt) < split_from:
        return Route(decode, None, f"the prompt has {len(request.prompt)} tokens, fewer than {split_from}")
    reason = f"the prompt has at least {split_from} uncached tokens"
    return Route(decode, _least_queued(prefillers), reason)


def _fitting(request: GenerationRequest, snapshot: ClusterSnapshot) -> list[WorkerState]:
    """Workers of the request's model that can hold its prompt; at least one."""
    alive = snapshot.serving(request.model)
    if not alive:
        raise CapacityError(f"no worker of {request.model} is ready; see /readyz, and try again shortly")
    if request.grammar is not None:
        alive = tuple(state for state in alive if state.identity.capabilities.grammars)
        if not alive:
            raise InvalidRequest(f"no worker of {request.model} can hold an answer to a schema; ask for plain text")
    num_tokens = len(request.prompt)
    serving = [state for state in alive if num_tokens < state.identity.capabilities.max_context_tokens]
    if not serving:
        longest = max(state.identity.capabilities.max_context_tokens for state in alive)
        raise ContextOverflow(f"the prompt has {num_tokens} tokens; the workers hold {longest}, answer included")
    return serving


def fetch_threshold(route: Route, snapshot: ClusterSnapshot, routing: RoutingConfig) -> int:
    """From how many tokens on, cached on the decode worker and not on the prefill worker, a fetch of them pays.

    0 when it never does: KV of another numeric provenance would not be the prefill worker's own.
    """
    states = {state.identity.worker: state for state in snapshot.workers}
    if not routing.min_fetch_tokens or route.prefill is None or (route.decode, route.prefill) in snapshot.mismatched:
        return 0
    source, sink = states[route.decode], states[route.prefill]
    ours, theirs = sink.identity.capabilities, source.identity.capabilities
    if (ours.provenance, ours.layout.dtype) != (theirs.provenance, theirs.layout.dtype):
        return 0
    if routing.policy != "cost" or sink.cost is None:
        return routing.min_fetch_tokens
    return fetch_pays_from(sink, sink.cost, route.decode, theirs.layout.token_bytes)


def _reaching(
    sink: WorkerState, sources: Iterable[WorkerState], apart: Collection[tuple[WorkerId, WorkerId]]
) -> Iterator[WorkerState]:
    """Whose KV a decode worker may be sent: that of all others that can pass it theirs."""
    others = (state for state in sources if state.identity.worker != sink.identity.worker)
    return (state for state in others if _can_pass(state, sink, apart))


def _can_pass(source: WorkerState, sink: WorkerState, apart: Collection[tuple[WorkerId, WorkerId]]) -> bool:
    """Whether the KV of one means the same to the other, and nothing that was found out keeps them apart."""
    ours, theirs = source.identity, sink.identity
    same = ours.capabilities.fingerprint == theirs.capabilities.fingerprint
    return same and (not apart or (ours.worker, theirs.worker) not in apart)


def _is_cut_off(decode: WorkerState, sources: Iterable[WorkerState], snapshot: ClusterSnapshot) -> bool:
    """Whether those whose KV it may be sent were not heard, none of them, a short while ago."""
    apart = snapshot.mismatched | snapshot.parted
    return any(_reaching(decode, sources, snapshot.mismatched)) and not any(_reaching(decode, sources, apart))


def _preferred(states: Iterable[WorkerState], excluded: Collection[WorkerId]) -> list[WorkerState]:
    candidates = list(states)
    return [s for s in candidates if s.identity.worker not in excluded] or candidates


def _decode_load(state: WorkerState) -> tuple[int, WorkerId]:
    return (max(state.in_flight, state.load.running + state.load.waiting), state.identity.worker)


def _least_queued(states: list[WorkerState]) -> WorkerId:
    def queued(state: WorkerState) -> tuple[int, int, WorkerId]:
        return (max(state.in_flight_tokens, state.load.waiting_tokens), state.in_flight, state.identity.worker)

    return min(states, key=queued).identity.worker
