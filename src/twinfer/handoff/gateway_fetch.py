"""The fetch of a prompt's beginning, from its gateway's side, as a pure state machine: an optimisation, never a duty.

    ASKED ──granted──> LENT ──the prefill worker is done──> fetched
      ├──the prefill worker has it, or nearly──> cached │
      └──refused, busy, failed, overdue──<──────────────┘

1. The decode worker, which promised room for the prompt, said how much of it is cached there. The prefill worker is
   asked for room for that prefix, and says how much of it is cached already.
2. If that leaves enough to fetch, the decode worker is told to lend the prefix under the prefill worker's grant.
3. However it ends, the prompt goes to the prefill worker next, which finds what is there. Whatever is still open of a
   fetch that did not succeed is cancelled.
"""

from dataclasses import dataclass

import msgspec

from twinfer.core.grant import Use
from twinfer.core.ids import RequestId, WorkerId
from twinfer.core.messages import Busy, Cancel, Failed, FailureKind, Granted, Lend, Refused, Reserve
from twinfer.core.request import GenerationRequest
from twinfer.handoff.gateway_actions import FetchBegan, FetchEnded, Fetching, GatewayAction, Mismatch, Send


@dataclass(slots=True)
class PrefixFetch:
    """One fetch.

    Attributes:
        request: the prefix as a request of its own: its own id, the prompt cut, and little time.
        fetching: what the plan says of it; the source is the decode worker.
        sink: the prefill worker.
        outcome: how it ended; ``None`` while it is under way.
    """

    request: GenerationRequest
    fetching: Fetching
    sink: WorkerId
    outcome: str | None = None

    @classmethod
    def of(
        cls, request: GenerationRequest, fetching: Fetching, sink: WorkerId, num_tokens: int, within_s: float
    ) -> "PrefixFetch":
        """The fetch of a request's first ``num_tokens`` tokens."""
        prefix = msgspec.structs.replace(
            request,
            request_id=RequestId(f"{request.request_id}.fetch"),
            prompt=request.prompt[:num_tokens],
            deadline_s=min(request.deadline_s, within_s),
        )
        return cls(prefix, fetching, sink)

    @property
    def request_id(self) -> RequestId:
        """Its own id on the wire."""
        return self.request.request_id

    def begin(self) -> list[GatewayAction]:
        """Ask the prefill worker for room."""
        passing = self.fetching.passing
        source = (passing.source, passing.source_epoch, passing.capabilities)
        reserve = Reserve(self.request, passing.handoff, 1, *source, Use.CACHE)
        return [Send(self.sink, reserve), FetchBegan(self.request_id, self.request.deadline_s)]

    def heard(self, message: Granted | Busy | Refused | Failed) -> list[GatewayAction]:
        """A worker speaks of it."""
        if self.outcome is not None:
            return []
        if isinstance(message, Granted):
            has_tokens = message.cached_tokens + message.host_tokens
            if len(self.request.prompt) - has_tokens < self.fetching.min_tokens:
                return self.end("cached")
            return [Send(self.fetching.passing.source, Lend(self.request, message.grant))]
        if isinstance(message, Busy):
            return self.end("busy")
        refused = isinstance(message, Refused)
        if message.incompatible if isinstance(message, Refused) else message.kind is FailureKind.INCOMPATIBLE:
            return [Mismatch(self.fetching.passing.source, self.sink), *self.end("incompatible")]
        return self.end("refused" if refused else "failed")

    def done(self, worker: WorkerId) -> list[GatewayAction]:
        """A worker finished its part; the sink's is what counts."""
        if self.outcome is not None or worker != self.sink:
            return []
        self.outcome = "fetched"
        return [FetchEnded(self.outcome)]

    def end(self, outcome: str) -> list[GatewayAction]:
        """Do without it."""
        if self.outcome is not None:
            return []
        self.outcome = outcome
        workers = (self.fetching.passing.source, self.sink)
        return [*(Send(worker, Cancel(self.request_id)) for worker in workers), FetchEnded(outcome)]
