"""Which workers serve a request: the least loaded of each role, split over two when the prompt is long enough."""

from collections.abc import Collection, Iterable, Iterator

from twinfer.core.config import RoutingConfig
from twinfer.core.errors import CapacityError, ContextOverflow, InvalidRequest
from twinfer.core.ids import WorkerId
from twinfer.core.request import GenerationRequest
from twinfer.core.route import Route, RouteKind
from twinfer.core.snapshot import ClusterSnapshot, WorkerState


def choose_route(
    request: GenerationRequest,
    snapshot: ClusterSnapshot,
    routing: RoutingConfig,
    forced: RouteKind | None = None,
    excluded: Collection[WorkerId] = (),
) -> Route:
    """The route of one request.

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
        decoders = [state for state in decoders if any(_reaching(state.identity.worker, sources, snapshot.mismatched))]
        if not decoders:
            raise CapacityError(f"no prefill worker of {request.model} is ready; try again shortly, or do not force it")
    decoders = _preferred(decoders, excluded)
    if forced is not RouteKind.AGGREGATED and len(request.prompt) >= routing.min_remote_tokens and snapshot.parted:
        decoders = [state for state in decoders if not _is_cut_off(state, sources, snapshot)] or decoders
    decode = min(decoders, key=_decode_load).identity.worker
    heard = list(_reaching(decode, sources, snapshot.mismatched | snapshot.parted))
    prefillers = [state for state in heard if state.identity.worker not in excluded]
    if forced is not None:
        anybody = prefillers or heard or list(_reaching(decode, sources, snapshot.mismatched))
        prefill = _least_queued(anybody) if forced is RouteKind.DISAGGREGATED else None
        return Route(decode, prefill, "forced by the client")
    if not prefillers:
        reason = "every prefill worker failed this request" if heard else "no prefill worker that fits reaches it"
        return Route(decode, None, reason)
    if decode in excluded:
        return Route(decode, None, "every decode worker failed this request; this one takes it alone")
    if len(request.prompt) < routing.min_remote_tokens:
        reason = f"the prompt has {len(request.prompt)} tokens, fewer than {routing.min_remote_tokens}"
        return Route(decode, None, reason)
    reason = f"the prompt has at least {routing.min_remote_tokens} uncached tokens"
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
    serving = {state.identity.worker: state.identity.capabilities for state in snapshot.workers}
    if route.prefill is None or (route.decode, route.prefill) in snapshot.mismatched:
        return 0
    source, sink = serving[route.decode], serving[route.prefill]
    alike = (source.provenance, source.layout.dtype) == (sink.provenance, sink.layout.dtype)
    return routing.min_fetch_tokens if alike else 0


def _reaching(
    sink: WorkerId, sources: Iterable[WorkerState], apart: Collection[tuple[WorkerId, WorkerId]]
) -> Iterator[WorkerState]:
    """Whose KV a decode worker may be sent: that of all others but those it is kept apart from."""
    others = (state for state in sources if state.identity.worker != sink)
    return (state for state in others if (state.identity.worker, sink) not in apart) if apart else others


def _is_cut_off(decode: WorkerState, sources: Iterable[WorkerState], snapshot: ClusterSnapshot) -> bool:
    """Whether those whose KV it may be sent were not heard, none of them, a short while ago."""
    sink, apart = decode.identity.worker, snapshot.mismatched | snapshot.parted
    return any(_reaching(sink, sources, snapshot.mismatched)) and not any(_reaching(sink, sources, apart))


def _preferred(states: Iterable[WorkerState], excluded: Collection[WorkerId]) -> list[WorkerState]:
    candidates = list(states)
    return [s for s in candidates if s.identity.worker not in excluded] or candidates


def _decode_load(state: WorkerState) -> tuple[int, WorkerId]:
    return (max(state.in_flight, state.load.running + state.load.waiting), state.identity.worker)


def _least_queued(states: list[WorkerState]) -> WorkerId:
    def queued(state: WorkerState) -> tuple[int, int, WorkerId]:
        return (max(state.in_flight_tokens, state.load.waiting_tokens), state.in_flight, state.identity.worker)

    return min(states, key=queued).identity.worker
