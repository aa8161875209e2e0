"""Grants cannot be forged, replayed, widened or used by others; each refusal says which."""

import msgspec
import pytest

from tests.fakes import KEY, MODEL, POOL, a_request
from tests.handoff.test_machines import terms
from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.errors import GrantRefused
from twinfer.core.grant import Grant, GrantTerms, Use, request_digest
from twinfer.core.ids import Epoch, HandoffId, TenantId, WorkerId
from twinfer.core.layout import KVLayout
from twinfer.core.request import GenerationRequest
from twinfer.engine.assemble import emulated_capabilities
from twinfer.handoff.grants import UsedGrants, check_for_source, sign, verify

REQUEST = a_request([1, 2, 3])
ME = WorkerIdentity(WorkerId("p"), Epoch("ep"), Role.PREFILL, emulated_capabilities(MODEL, POOL), "unix:/p")


def granted(**changes: object) -> GrantTerms:
    """Terms that fit REQUEST and ME, apart from the changes."""
    mine = ME.capabilities
    fitting = {
        "request": request_digest(REQUEST),
        "fingerprint": mine.fingerprint.digest(),
        "wire": mine.layout,
        "provenance": mine.provenance,
        "end_block": 1,
    }
    return msgspec.structs.replace(terms(), **(fitting | changes))


def test_a_grant_survives_the_wire() -> None:
    """What was signed is what is read."""
    assert granted() == verify(sign(granted(), KEY), KEY)
    assert check_for_source(granted(), REQUEST, Use.DECODE, ME, 0.0) is None


@pytest.mark.parametrize("position", [0, 10, -1])
def test_a_flipped_byte_is_a_forgery(position: int) -> None:
    """In the terms or in the signature."""
    grant = sign(granted(), KEY)
    changed = bytearray(grant.terms)
    changed[position] ^= 1
    signature = bytearray(grant.signature)
    signature[position] ^= 1
    for forged in (Grant(bytes(changed), grant.signature), Grant(grant.terms, bytes(signature))):
        with pytest.raises(GrantRefused, match="forged"):
            verify(forged, KEY)


def test_another_cluster_key_is_a_forgery() -> None:
    """Whoever does not hold the key cannot grant."""
    with pytest.raises(GrantRefused, match="forged"):
        verify(sign(granted(), b"another key"), KEY)


@pytest.mark.parametrize(
    ("changes", "request_", "now", "word"),
    [
        ({"expires_unix_s": 5.0}, REQUEST, 6.0, "expired"),
        ({"source": WorkerId("q")}, REQUEST, 0.0, "foreign"),
        ({"source_epoch": Epoch("old")}, REQUEST, 0.0, "stale"),
        ({"tenant": TenantId("other")}, REQUEST, 0.0, "tenant"),
        ({}, a_request([1, 2, 4]), 0.0, "widened"),
        ({"use": Use.CACHE}, REQUEST, 0.0, "widened"),
        ({"end_block": 2}, REQUEST, 0.0, "widened"),
        ({"start_block": 2}, REQUEST, 0.0, "widened"),
        ({"fingerprint": "other"}, REQUEST, 0.0, "incompatible"),
        ({"wire": KVLayout(1, 1, 8, 16, "fp32")}, REQUEST, 0.0, "incompatible"),
        ({"provenance": "bf16/bf16"}, REQUEST, 0.0, "incompatible"),
    ],
)
def test_each_misuse_has_its_reason(
    changes: dict[str, object], request_: GenerationRequest, now: float, word: str
) -> None:
    """The first word of the refusal is the metric's label."""
    objection = check_for_source(granted(**changes), request_, Use.DECODE, ME, now)
    assert objection is not None
    assert objection.startswith(f"{word}:")


def test_a_grant_serves_once() -> None:
    """The same attempt or an earlier one is a replay, a later one is another grant; others are not concerned."""
    used = UsedGrants()
    assert used.objection(granted(attempt=2)) is None
    used.add(granted(attempt=2), 0.0)
    for attempt, refused in ((1, True), (2, True), (3, False)):
        objection = used.objection(granted(attempt=attempt))
        assert (objection or "").startswith("replayed:") == refused
    assert used.objection(granted(handoff=HandoffId("other"))) is None


def test_used_grants_are_remembered_for_as_long_as_they_are_valid() -> None:
    """Afterwards their time has passed, which is a reason of its own."""
    used = UsedGrants()
    for number in range(5):
        used.add(granted(handoff=HandoffId(str(number)), expires_unix_s=10.0 + number), 0.0)
    used.add(granted(handoff=HandoffId("now"), expires_unix_s=20.0), 12.5)
    remembered = [used.objection(granted(handoff=HandoffId(str(number)))) is not None for number in range(5)]
    assert remembered == [False, False, False, True, True]
