"""The permission to pass KV: issued and signed by the sink, carried by the gateway, presented by the source.

It binds one handoff and attempt to one direction (source epoch and sink epoch), tenant, request, token range and use.
Nothing in it comes from a client, and its contents are meaningless without the cluster key.
"""

from enum import StrEnum
from hashlib import blake2b

import msgspec

from twinfer.core.ids import Epoch, HandoffId, TenantId, WorkerId
from twinfer.core.layout import KVLayout
from twinfer.core.request import GenerationRequest


class Use(StrEnum):
    """What the sink does with the KV once it is committed."""

    DECODE = "decode"
    """It decodes on from the first token."""
    CACHE = "cache"
    """It keeps full blocks in its prefix cache, for a prompt that begins with them."""


class Proof(StrEnum):
    """How a sink convinces itself, before it commits, that it holds the source's KV."""

    DIGEST = "digest"
    """By a digest of every chunk, as it arrived; it may commit after the source's death."""
    GENERATION = "generation"
    """By the source's word, after all has arrived, that it never let go of the blocks; what the link did to the bytes
    stays unknown."""


class GrantTerms(msgspec.Struct, frozen=True):
    """What a grant allows.

    Args:
        handoff: the handoff, and the ``attempt`` at it.
        tenant: whose KV it is.
        use: what the KV is passed for.
        proof: what the commit rests on.
        request: digest of the frozen request, so that a grant serves no other prompt.
        fingerprint: digest of the model's fingerprint.
        source, source_epoch: who may offer.
        sink, sink_epoch, sink_address: who may read, and where its control stream is.
        wire: layout in which the bytes travel: the source's own. The sink converts.
        provenance: numeric provenance of the source, which the sink takes.
        start_block, end_block: in blocks of ``wire``; all tokens before are on the sink already. The source offers
            ``[start_block, end_block)``, and the sink drops what it has of the first one.
        ttl_s: seconds that each side grants, on its own clock from its own start.
        expires_unix_s: wall clock after which nobody accepts it; a bound, with the usual doubt about clocks.
    """

    handoff: HandoffId
    attempt: int
    tenant: TenantId
    use: Use
    proof: Proof
    request: str
    fingerprint: str
    source: WorkerId
    source_epoch: Epoch
    sink: WorkerId
    sink_epoch: Epoch
    sink_address: str
    wire: KVLayout
    provenance: str
    start_block: int
    end_block: int
    ttl_s: float
    expires_unix_s: float


class Grant(msgspec.Struct, frozen=True):
    """Signed terms, as they travel."""

    terms: bytes
    signature: bytes


_encoder = msgspec.msgpack.Encoder()


def request_digest(request: GenerationRequest) -> str:
    """A name for the frozen request, equal on every worker that holds the same one."""
    return blake2b(_encoder.encode(request), digest_size=16).hexdigest()
