"""Signing and checking grants. Each refusal begins with its own word, which is also the metric's label."""

import hmac
from collections import OrderedDict

import msgspec

from twinfer.core.capabilities import WorkerIdentity
from twinfer.core.config import HandoffConfig
from twinfer.core.errors import GrantRefused
from twinfer.core.grant import Grant, GrantTerms, Use, request_digest
from twinfer.core.ids import HandoffId
from twinfer.core.messages import Reserve
from twinfer.core.request import GenerationRequest

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(GrantTerms)


def terms_of(
    message: Reserve, sink: WorkerIdentity, handoff: HandoffConfig, to_come: range, expires_unix_s: float
) -> GrantTerms:
    """What a sink grants.

    Args:
        message: asks for it.
        sink: the one that grants.
        handoff: its configuration.
        to_come: the positions whose KV it lacks.
        expires_unix_s: nobody may begin with the grant later.
    """
    source = message.capabilities
    return GrantTerms(
        handoff=message.handoff,
        attempt=message.attempt,
        tenant=message.request.tenant,
        use=message.use,
        proof=handoff.commit,
        request=request_digest(message.request),
        fingerprint=sink.capabilities.fingerprint.digest(),
        source=message.source,
        source_epoch=message.source_epoch,
        sink=sink.worker,
        sink_epoch=sink.epoch,
        sink_address=sink.control,
        wire=source.layout,
        provenance=source.provenance,
        start_block=to_come.start // source.layout.block_tokens,
        end_block=source.layout.blocks_for(to_come.stop),
        ttl_s=handoff.lease_s,
        expires_unix_s=expires_unix_s,
    )


def sign(terms: GrantTerms, cluster_key: bytes) -> Grant:
    """Issue a grant."""
    encoded = _encoder.encode(terms)
    return Grant(encoded, _signature(encoded, cluster_key))


def verify(grant: Grant, cluster_key: bytes) -> GrantTerms:
    """The terms, if the signature is ours.

    Raises:
        GrantRefused: the signature is wrong, or the terms cannot be read.
    """
    if not hmac.compare_digest(grant.signature, _signature(grant.terms, cluster_key)):
        raise GrantRefused("forged: the grant's signature does not verify")
    try:
        return _decoder.decode(grant.terms)
    except msgspec.DecodeError as error:
        raise GrantRefused("malformed: the grant's terms cannot be read") from error


def check_for_source(
    terms: GrantTerms, request: GenerationRequest, use: Use, me: WorkerIdentity, now_unix_s: float
) -> str | None:
    """Why this source must not use the grant for this request in this way; ``None`` when it may."""
    if now_unix_s > terms.expires_unix_s:
        return "expired: the grant's time has passed"
    if terms.source != me.worker:
        return f"foreign: the grant names source {terms.source}, this is {me.worker}"
    if terms.source_epoch != me.epoch:
        return "stale: the grant names an earlier start or role of this worker"
    if terms.tenant != request.tenant:
        return "tenant: the grant is for another tenant"
    if terms.request != request_digest(request):
        return "widened: the grant is for another request"
    if terms.use is not use:
        return f"widened: the grant is for use {terms.use.value}, not {use.value}"
    if terms.fingerprint != me.capabilities.fingerprint.digest():
        return "incompatible: the grant is for another model"
    mine = me.capabilities
    if terms.wire != mine.layout or terms.provenance != mine.provenance:
        asked, made = f"{terms.provenance} in {terms.wire}", f"{mine.provenance} in {mine.layout}"
        return f"incompatible: the grant asks for KV of {asked}, this worker makes {made}"
    if not 0 <= terms.start_block <= terms.end_block <= terms.wire.blocks_for(len(request.prompt)):
        return "widened: the granted blocks are not within the prompt"
    return None


class UsedGrants:
    """Grants that this source has taken, for as long as they are valid: none serves twice."""

    def __init__(self) -> None:
        self._used: OrderedDict[HandoffId, GrantTerms] = OrderedDict()

    def add(self, terms: GrantTerms, now_unix_s: float) -> None:
        """One is used now; those whose time has passed are forgotten, since they are refused for that."""
        while self._used and next(iter(self._used.values())).expires_unix_s < now_unix_s:
            self._used.popitem(last=False)
        self._used[terms.handoff] = terms
        self._used.move_to_end(terms.handoff)

    def objection(self, terms: GrantTerms) -> str | None:
        """Why it must not be used; ``None`` when it may. A later attempt at the same handoff is another grant."""
        used = self._used.get(terms.handoff)
        if used is None or terms.attempt > used.attempt:
            return None
        return "replayed: the grant was used before, and what it was for has ended"


def _signature(encoded: bytes, cluster_key: bytes) -> bytes:
    return hmac.digest(cluster_key, b"twinfer grant v1\x00" + encoded, "sha256")
