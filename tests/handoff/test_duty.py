"""A worker's changes of role, told as orders and looks in any order."""

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import MODEL, POOL
from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.ids import Epoch, WorkerId, new_epoch, next_epoch
from twinfer.engine.assemble import emulated_capabilities
from twinfer.handoff.duty import Duty, DutyState, Order

DRAIN_S = 2.0
turns = st.tuples(st.just("turn"), st.sampled_from(Role))
looks = st.tuples(st.just("look"), st.integers(0, 2))
pauses = st.tuples(st.just("pause"), st.floats(0, 3))
leaves = st.tuples(st.just("leave"), st.none() | st.floats(0, 3))


def a_duty() -> Duty:
    """A prefill worker's."""
    capabilities = emulated_capabilities(MODEL, POOL)
    return Duty(WorkerIdentity(WorkerId("w"), new_epoch(), Role.PREFILL, capabilities, ""), DRAIN_S)


@given(st.lists(st.one_of(turns, looks, pauses, leaves), max_size=40))
def test_any_history(history):
    """The epoch never falls, and rises with each change of role only, when nothing is open; who drains ends."""
    duty, now = a_duty(), 0.0
    for kind, value in history:
        before, took = duty.identity, duty.takes_new
        if kind == "pause":
            now += value
        elif kind == "turn":
            duty.turn(value, now)
        elif kind == "leave":
            duty.leave(now, value)
        else:
            order = duty.look(value, now)
            assert (order is Order.TURN) == (duty.identity.epoch > before.epoch)
            assert order not in (Order.TURN, Order.GO) or value == 0
            assert not took or order is Order.WAIT
        changed = duty.identity.role is not before.role
        assert changed == (duty.identity.epoch != before.epoch)
        assert duty.identity.epoch >= before.epoch
    end = duty.look(0, now)
    assert duty.state in (DutyState.SERVING, DutyState.GONE)
    assert end is Order.WAIT or duty.takes_new == (end is Order.TURN)


def test_hands_back_once():
    """What is not done when the time is over is given up, once; the turn waits until that has happened."""
    duty = a_duty()
    assert duty.turn(Role.DECODE, 10.0) is None
    said = [duty.look(3, 11.9), duty.look(3, 12.0), duty.look(3, 13.0), duty.look(0, 13.0)]
    assert said == [Order.WAIT, Order.HAND_BACK, Order.WAIT, Order.TURN]


def test_one_turn_at_a_time():
    """Told again, it goes on; told otherwise, it objects; told to leave, it leaves."""
    duty = a_duty()
    assert [duty.turn(Role.DECODE, 0.0), duty.turn(Role.DECODE, 1.0)] == [None, None]
    assert duty.turn(Role.BOTH, 1.0) == "w is turning to decode; ask again when it is done"
    duty.leave(1.0)
    assert [duty.look(0, 1.0), duty.identity.role, duty.takes_new] == [Order.GO, Role.PREFILL, False]


def test_same_role():
    """Nothing is drained for a role that it has."""
    duty = a_duty()
    assert (duty.turn(Role.PREFILL, 0.0), duty.takes_new) == (None, True)


@given(st.integers(0, 2**63 - 1))
def test_next_epoch(number):
    """One more, and greater as text, too."""
    epoch = Epoch(f"{number:016x}")
    assert (int(next_epoch(epoch), 16), next_epoch(epoch) > epoch) == (number + 1, True)


def test_leaves_at_leisure():
    """It drains for as long as it is told to; told again, until the earlier end; a turn under way does not count."""
    duty = a_duty()
    duty.turn(Role.DECODE, 0.0)
    duty.leave(1.0, 60.0)
    assert [duty.look(1, now) for now in (2.5, 60.9)] == [Order.WAIT, Order.WAIT]
    duty.leave(50.0)
    duty.leave(50.0, 60.0)
    assert [duty.look(1, now) for now in (51.9, 52.0, 53.0)] == [Order.WAIT, Order.HAND_BACK, Order.WAIT]
    assert duty.look(0, 53.0) is Order.GO
