"""Who gets room next on a decode worker, and who has waited long enough."""

import msgspec

from tests.fakes import MODEL, POOL, a_request
from twinfer.core.ids import Epoch, HandoffId, RequestId, WorkerId
from twinfer.core.messages import Reserve
from twinfer.core.service import Tier
from twinfer.core.turns import PASSES
from twinfer.engine.assemble import emulated_capabilities
from twinfer.handoff.waiting_room import Waiting, WaitingRoom

CAPABILITIES = emulated_capabilities(MODEL, POOL)


def waiting(name: str, tier: Tier, until: float = 10.0) -> Waiting:
    """A reservation."""
    request = msgspec.structs.replace(a_request([1, 2, 3], 1, name), tier=tier)
    return Waiting(Reserve(request, HandoffId(name), 1, WorkerId("p"), Epoch("0" * 16), CAPABILITIES), until)


def names(room: WaitingRoom) -> list[str]:
    """All, in the order in which they get room."""
    order = []
    while room:
        order.append(room.take().message.request.request_id)
    return order


def test_tiers_come_in_order() -> None:
    """And within one by arrival; who left is not there."""
    room = WaitingRoom()
    for name, tier in (
        ("a", Tier.FLEX),
        ("b", Tier.DEFAULT),
        ("c", Tier.PRIORITY),
        ("d", Tier.FLEX),
        ("e", Tier.DEFAULT),
    ):
        room.enter(waiting(name, tier))
    room.leave(RequestId("e"))
    room.leave(RequestId("nobody"))
    assert (True, False) == (RequestId("a") in room, RequestId("e") in room)
    assert ["c", "b", "a", "d"] == names(room)


def test_a_new_one_comes_before_worse_tiers_only() -> None:
    """And before nobody once the one that waits was passed too often."""
    room = WaitingRoom()
    assert not room.is_before(Tier.FLEX.rank)
    room.enter(waiting("a", Tier.DEFAULT))
    assert [False, True, True] == [room.is_before(tier.rank) for tier in (Tier.PRIORITY, Tier.DEFAULT, Tier.FLEX)]
    for _ in range(PASSES):
        room.passed()
    assert room.is_before(Tier.RESERVED.rank)


def test_patience_ends() -> None:
    """Only that of those whose time has come."""
    room = WaitingRoom()
    for name, until in (("a", 1.0), ("b", 3.0), ("c", 2.0)):
        room.enter(waiting(name, Tier.DEFAULT, until))
    assert ["a", "c"] == [one.message.request.request_id for one in room.overdue(2.0)]
    assert ["b"] == names(room)
