"""The product with one rule broken: each of these the fuzzer must find, or it proves nothing."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import msgspec

from twinfer.core.block_hash import BlockHasher
from twinfer.core.capabilities import WorkerIdentity
from twinfer.core.grant import Grant, GrantTerms
from twinfer.core.ids import RequestId, TenantId
from twinfer.core.messages import Confirm, Confirmed, Reserve
from twinfer.core.request import GenerationRequest
from twinfer.engine.ingest import IngestLedger
from twinfer.engine.lending import LendLedger, Loan
from twinfer.handoff.lease import Lease
from twinfer.handoff.sink import SinkHandoff, SinkState
from twinfer.handoff.source import SourceHandoff
from twinfer.worker import sink_desk, source_desk
from twinfer.worker.intake import Intake
from twinfer.worker.sink_desk import SinkDesk
from twinfer.worker.source_desk import Link, SourceDesk

_pulled, _offered, _sealed = SinkHandoff.pulled, SinkHandoff.offered, SinkHandoff.sealed
_terms, _init = sink_desk.terms_of, Intake.__init__
_bind, _source_hears, _confirm = IngestLedger.bind, SourceDesk.hear, SourceHandoff.confirm_asked
_commit_if_whole, _end, _root = SinkHandoff._commit_if_whole, SinkDesk._end, BlockHasher.root


def _skip_digest(self: SinkHandoff, index: int, digest: int, now: float) -> Any:
    del digest
    return _pulled(self, index, self._chunks[index].digest, now)


def _ignore_epoch(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, message, epoch, now: method(self, message, self.terms.source_epoch, now)


def _commit_early(self: SinkHandoff, now: float) -> Any:
    self._verified = set(self._chunks)
    return _commit_if_whole(self, now)


def _free_early(self: SinkDesk, entry: Any, outcome: Any) -> None:
    peer, entry.peer = entry.peer, None
    _end(self, entry, outcome)
    entry.peer = peer


def _accept_forged(grant: Grant, cluster_key: bytes) -> GrantTerms:
    del cluster_key
    try:
        return msgspec.msgpack.decode(grant.terms, type=GrantTerms)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise source_desk.GrantRefused("malformed: cannot be read") from error


def _count_in_own_blocks(message: Reserve, sink: WorkerIdentity, *others: Any) -> GrantTerms:
    terms = _terms(message, sink, *others)
    to_come: range = others[1]
    return msgspec.structs.replace(terms, start_block=to_come.start // sink.capabilities.layout.block_tokens)


def _keep_the_surplus(self: Intake, plan: Any, tokens: range, *others: Any, **options: Any) -> None:
    first = tokens.start // plan.source.block_tokens * plan.source.block_tokens
    _init(self, plan, range(first, tokens.stop), *others, **options)


def _forget_tenant(self: BlockHasher, tenant: TenantId, salt: str) -> bytes:
    del tenant
    return _root(self, TenantId("everybody"), salt)


def _lend_anybodys(self: LendLedger, request: GenerationRequest, num_blocks: int, now: float) -> tuple[int, ...] | None:
    del now
    pool = self._prefixes.pool
    self._lent[request.request_id] = Loan(tuple(pool.match(list(pool._by_hash), num_blocks)))
    return self._lent[request.request_id].blocks


def _publish_before_commit(self: IngestLedger, request_id: RequestId) -> tuple[int, ...]:
    bound = _bind(self, request_id)
    ingest = self._open[request_id]
    if request_id.endswith(".fetch"):
        ingest.sequence.blocks = ingest.prefix + ingest.bound
        ingest.sequence.num_computed = ingest.to_come.stop
        self._loop.prefixes.publish(ingest.sequence)
    return bound


def _confirm_after_the_lease(self: SourceDesk, link: Link, message: Any) -> None:
    if isinstance(message, Confirm) and message.handoff not in self._open:
        self._context.soon(link.send, Confirmed(message.handoff, message.attempt))
    else:
        _source_hears(self, link, message)


def _never_ask(self: SinkHandoff, now: float) -> Any:
    actions = _commit_if_whole(self, now)
    return self._commit(now) if self.state is SinkState.CONFIRMING else actions


MUTANTS: dict[str, Callable[[], list[Any]]] = {
    "skip the digest": lambda: [patch.object(SinkHandoff, "pulled", _skip_digest)],
    "ignore the epoch": lambda: [
        patch.object(SinkHandoff, "offered", _ignore_epoch(_offered)),
        patch.object(SinkHandoff, "sealed", _ignore_epoch(_sealed)),
    ],
    "commit early": lambda: [patch.object(SinkHandoff, "_commit_if_whole", _commit_early)],
    "free early": lambda: [patch.object(SinkDesk, "_end", _free_early)],
    "accept forged grants": lambda: [patch.object(source_desk, "verify", _accept_forged)],
    "count the start in the sink's blocks": lambda: [patch.object(sink_desk, "terms_of", _count_in_own_blocks)],
    "write what the sink has already": lambda: [patch.object(Intake, "__init__", _keep_the_surplus)],
    "forget the tenant": lambda: [patch.object(BlockHasher, "root", _forget_tenant)],
    "lend anybody's blocks": lambda: [patch.object(LendLedger, "lend", _lend_anybodys)],
    "publish a fetch before its commit": lambda: [patch.object(IngestLedger, "bind", _publish_before_commit)],
    "confirm after the lease": lambda: [patch.object(SourceDesk, "hear", _confirm_after_the_lease)],
    "confirm what was let go": lambda: [
        patch.object(SourceHandoff, "confirm_asked", lambda self, now: _confirm(self, tuple(self._generations)))
    ],
    "commit without asking": lambda: [patch.object(SinkHandoff, "_commit_if_whole", _never_ask)],
    "never let a lease end": lambda: [patch.object(Lease, "expired", lambda self, now: False)],
}
"""By the rule they break; each gives the patches to apply."""
