"""Events from a mould are those that are encoded whole."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from twinfer.gateway.dialects.sse import HOLE, Mould, encode_event

JSON = st.recursive(st.none() | st.integers(-9, 9) | st.text(), lambda inner: st.dictionaries(st.text(), inner))


def payload(name: str, first: Any, second: Any) -> dict[str, Any]:
    """Two values among others."""
    return {"id": name, "choices": [{"index": first, "delta": second, "end": None}], "usage": name}


@given(st.text(), st.lists(st.tuples(JSON, JSON), min_size=1, max_size=3))
def test_a_filled_mould(name: str, values: list[tuple[Any, Any]]) -> None:
    """Whatever stands around the holes and goes into them, as often as it is filled."""
    mould = Mould(payload(name, HOLE, HOLE))
    assert [encode_event(payload(name, *pair)) for pair in values] == [mould.fill(*pair) for pair in values]
