"""Which workers serve a request: the least loaded of each role, split over two when the prompt is long enough."""

from collections.abc import Collection, Iterable

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
    sources = {state.identity.worker: _sources(state, serving, snapshot.mismatched) for state in decoders}
    if forced is RouteKind.DISAGGREGATED:
        decoders = [state for state in decoders if sources[state.identity.worker]]
        if not decoders:
            raise CapacityError(f"no prefill worker of {request.model} is ready; try again shortly, or do not force it")
    decoders = _preferred(decoders, excluded)
    heard = {
        state.identity.worker: _sources(state, serving, snapshot.mismatched | snapshot.parted) for state in decoders
    }
    if forced is not RouteKind.AGGREGATED and len(request.prompt) >= routing.min_remote_tokens:
        cut_off = {worker for worker in heard if sources[worker] and not heard[worker]}
        decoders = [state for state in decoders if state.identity.worker not in cut_off] or decoders
    decode = min(decoders, key=_decode_load).identity.worker
    prefillers = [state for state in heard[decode] if state.identity.worker not in excluded]
    if forced is not None:
        anybody = prefillers or heard[decode] or sources[decode]
        prefill = _least_queued(anybody) if forced is RouteKind.DISAGGREGATED else None
        return Route(decode, prefill, "forced by the client")
    if not prefillers:
        reason = (
            "every prefill worker failed this request" if heard[decode] else "no prefill worker that fits reaches it"
        )
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
    serving = [state for state in alive if len(request.prompt) < _context(state)]
    if not serving:
        longest = max(_context(state) for state in alive)
        raise ContextOverflow(
            f"the prompt has {len(request.prompt)} tokens; the workers hold {longest}, answer included"
        )
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


def _sources(
    decode: WorkerState, serving: Iterable[WorkerState], apart: Collection[tuple[WorkerId, WorkerId]]
) -> list[WorkerState]:
    """Whose KV a decode worker may be sent: that of all but those it is kept apart from."""
    sink = decode.identity.worker
    others = (state for state in serving if state.identity.role.prefills and state.identity.worker != sink)
    return [state for state in others if (state.identity.worker, sink) not in apart]


def _preferred(states: Iterable[WorkerState], excluded: Collection[WorkerId]) -> list[WorkerState]:
    candidates = list(states)
    return [s for s in candidates if s.identity.worker not in excluded] or candidates


def _context(state: WorkerState) -> int:
    return state.identity.capabilities.max_context_tokens


def _decode_load(state: WorkerState) -> tuple[int, WorkerId]:
    return (max(state.in_flight, state.load.running + state.load.waiting), state.identity.worker)


def _least_queued(states: list[WorkerState]) -> WorkerId:
    def queued(state: WorkerState) -> tuple[int, int, WorkerId]:
        return (max(state.in_flight_tokens, state.load.waiting_tokens), state.in_flight, state.identity.worker)

    return min(states, key=queued).identity.worker
