"""The control plane's messages: between a gateway and a worker, and between the two workers of a handoff.

They are the wire's only definition. Every connection opens with the worker's ``WorkerIdentity``. Messages are
idempotent on (handoff, attempt, type, chunk), so a repeated or late one changes nothing.
"""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from twinfer.core.block_events import BlockEvents
from twinfer.core.capabilities import Capabilities, Role, WorkerIdentity
from twinfer.core.grant import Grant, Use
from twinfer.core.ids import Epoch, HandoffId, RequestId, WorkerId
from twinfer.core.load import LoadReport
from twinfer.core.manifest import Chunk
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Timings, Token


class _Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Tagged by its class name."""


# Gateway to worker.


class Generate(_Message, frozen=True):
    """Compute both phases here.

    Args:
        emitted: output tokens of an earlier attempt, which continue.
        provenance: cached KV of this numeric provenance may stand for a prefix, where the worker accepts it; empty
            takes the worker's own only.
    """

    request: GenerationRequest
    emitted: tuple[int, ...] = ()
    provenance: str = ""


class Reserve(_Message, frozen=True):
    """To the sink: promise room for the request's prompt, for KV that ``source`` will offer.

    ``capabilities`` are the source's, as it told the gateway: the sink says at once whether it can take such KV. For
    the prefix cache (``use``) the request is a fetch: its prompt is the prefix, its id its own.
    """

    request: GenerationRequest
    handoff: HandoffId
    attempt: int
    source: WorkerId
    source_epoch: Epoch
    capabilities: Capabilities
    use: Use = Use.DECODE


class Prefill(_Message, frozen=True):
    """To the source: compute the prompt, send token 0 back, and pass the KV under this grant."""

    request: GenerationRequest
    grant: Grant


class Lend(_Message, frozen=True):
    """To the source: pass the KV of the request's prompt, which is in the prefix cache, under this grant."""

    request: GenerationRequest
    grant: Grant


class Cancel(_Message, frozen=True):
    """Forget the request and all it holds. Safe to repeat, and for requests never seen."""

    request_id: RequestId


class Isolate(_Message, frozen=True):
    """Be cut off from all other workers for so many seconds, gateways excepted; for chaos tests.

    Refused unless ``handoff.allow_isolation`` is set; else answered with ``Done`` once it is over.
    """

    request_id: RequestId
    seconds: float


class TellBlocks(_Message, frozen=True):
    """What you told of your prefix cache has a gap: tell everything that is in it."""


class Become(_Message, frozen=True):
    """Serve other phases from now on.

    The worker takes nothing new, ends or hands back what it has, and says ``Hello`` again with its next epoch. Answered
    with ``Done`` then, or with ``Refused``.
    """

    request_id: RequestId
    role: Role


AboutRequest: TypeAlias = Generate | Reserve | Prefill | Lend | Cancel
ToWorker: TypeAlias = AboutRequest | Isolate | TellBlocks | Become


# Worker to gateway.


class Granted(_Message, frozen=True):
    """Answer to ``Reserve``. ``cached_tokens`` of the prompt are on the sink already. The next ``host_tokens`` are in
    its host tier: they come all the same, unless it computes the prompt itself, and can be fetched from there."""

    request_id: RequestId
    grant: Grant
    cached_tokens: int
    host_tokens: int = 0


class Busy(_Message, frozen=True):
    """No room now, and none for the ``waited_s`` seconds that it waited there."""

    request_id: RequestId
    retry_after_s: float
    waited_s: float = 0.0


class Refused(_Message, frozen=True):
    """Not here, for this reason, however often asked; ``incompatible`` when only this pair of workers is to blame."""

    request_id: RequestId
    reason: str
    incompatible: bool = False


class Done(msgspec.Struct, frozen=True, array_like=True):
    """This worker finished its part of a request: for a fetch, the sink has the prefix, or the source passed it."""

    request_id: RequestId
    timings: Timings


class Frame(_Message, frozen=True):
    """What one step brought for this gateway: all its tokens, and the requests that are done here with them."""

    tokens: tuple[Token, ...] = ()
    done: tuple[Done, ...] = ()


class FailureKind(StrEnum):
    """Whose fault it was, and so what the gateway may do about it."""

    ENGINE = "engine"
    """The engine failed on this request; trying again elsewhere may help."""
    HANDOFF = "handoff"
    """The KV did not arrive; the request can be planned again."""
    UNREACHABLE = "unreachable"
    """The same, because one of the two workers did not hear the other; nor would it the next time, for a while."""
    INCOMPATIBLE = "incompatible"
    """The two workers cannot pass KV to each other; with other workers the request can be served."""
    DEADLINE = "deadline"
    """The request's own time is over."""


class Failed(_Message, frozen=True):
    """The last thing this worker says of a request it could not finish its part of."""

    request_id: RequestId
    kind: FailureKind
    reason: str


class Load(_Message, frozen=True):
    """The worker's state, when it changed."""

    report: LoadReport


class Blocks(_Message, frozen=True):
    """The worker's prefix cache, when it changed; all of it first."""

    events: BlockEvents


class Hello(_Message, frozen=True):
    """Opens every stream, from the worker's side; said again when the worker's role has changed."""

    identity: WorkerIdentity


ToGateway: TypeAlias = Hello | Granted | Busy | Refused | Frame | Failed | Load | Blocks


# Source worker to sink worker.


class SourceHello(_Message, frozen=True):
    """Opens the control stream of a pair: who offers, and where its bytes can be read."""

    identity: WorkerIdentity


class Offer(_Message, frozen=True):
    """A chunk is final and may be pulled."""

    handoff: HandoffId
    attempt: int
    chunk: Chunk


class Seal(_Message, frozen=True):
    """All chunks were offered: their number, the root over their digests, and the first token where one is drawn."""

    handoff: HandoffId
    attempt: int
    num_chunks: int
    root: bytes
    first_token: Token | None


class Withdraw(_Message, frozen=True):
    """The source will not complete this handoff."""

    handoff: HandoffId
    attempt: int
    reason: str


class Heartbeat(_Message, frozen=True):
    """Still here, and still holding these."""

    epoch: Epoch
    handoffs: tuple[HandoffId, ...]


class Confirmed(_Message, frozen=True):
    """Answers ``Confirm``: the blocks are held since they were offered. Else the answer is ``Withdraw``."""

    handoff: HandoffId
    attempt: int


ToSink: TypeAlias = SourceHello | Offer | Seal | Confirmed | Withdraw | Heartbeat


# Sink worker to source worker.


class SinkHello(_Message, frozen=True):
    """Answers ``SourceHello``: accepted, or refused for this reason, before any byte moves.

    ``incompatible`` when the source's KV cannot be read here, rather than merely not reached.
    """

    identity: WorkerIdentity
    refusal: str | None = None
    incompatible: bool = False


class OfferAgain(_Message, frozen=True):
    """A chunk arrived corrupt or short."""

    handoff: HandoffId
    attempt: int
    index: int


class Confirm(_Message, frozen=True):
    """All has arrived: were the blocks held all the while?"""

    handoff: HandoffId
    attempt: int


class Committed(_Message, frozen=True):
    """The KV is attendable on the sink; the source may turn its blocks into ordinary cache."""

    handoff: HandoffId
    attempt: int


class Gone(_Message, frozen=True):
    """The sink does not know this handoff, or no longer."""

    handoff: HandoffId
    attempt: int
    reason: str


ToSource: TypeAlias = SinkHello | OfferAgain | Confirm | Committed | Gone | Heartbeat
