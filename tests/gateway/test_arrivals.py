"""Tokens wait for their reader, in order, and whoever listens is told."""

from twinfer.core.errors import EngineFailure
from twinfer.core.ids import RequestId
from twinfer.core.tokens import Token
from twinfer.gateway.arrivals import Arrivals

A, B, C = (Token(RequestId("r"), index, 7) for index in range(3))


def test_tokens_are_taken_once_and_in_order() -> None:
    """All that arrived since the last time."""
    arrivals = Arrivals()
    arrivals.push((A,))
    arrivals.push((B,))
    assert [A, B] == list(arrivals.take())
    arrivals.push((C,))
    assert [[C], []] == [list(arrivals.take()), list(arrivals.take())]


def test_the_listener_is_told_each_time() -> None:
    """Of what was there before it listened, of tokens, and of the error, which stays."""
    told, arrivals = list[str](), Arrivals()
    arrivals.listen(lambda: told.append("early"))
    assert [] == told
    arrivals.push((A,))
    arrivals.listen(lambda: told.append("there"))
    arrivals.fail(error := EngineFailure("broken"))
    assert ["early", "there", "there"] == told
    assert ([A], error) == (list(arrivals.take()), arrivals.error)
