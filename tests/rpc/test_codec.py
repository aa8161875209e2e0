"""Messages as bytes, and the proof."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rpc.handlers import REPORT, busy, cancel
from twinfer.core.errors import ConfigError, ProtocolError
from twinfer.core.ids import HandoffId
from twinfer.core.manifest import Chunk
from twinfer.core.messages import Load, Offer
from twinfer.rpc.codec import encode, load_report, proof, to_gateway, to_sink, to_source, to_worker


def test_messages_come_back_as_they_were():
    """One of each direction, with nested structs and the largest digest."""
    offer = Offer(HandoffId("ab"), 1, Chunk(0, 3, (7, 1, 9), 2**64 - 1))
    assert offer == to_sink.decode(encode(offer))
    assert cancel("x") == to_worker.decode(encode(cancel("x")))
    assert Load(REPORT) == to_gateway.decode(encode(Load(REPORT)))
    assert load_report.decode(encode(REPORT)) == REPORT


def test_a_message_of_another_direction_is_refused():
    """A worker that is sent its own words says what it expected."""
    with pytest.raises(ProtocolError, match="is no ToWorker"):
        to_worker.decode(encode(busy("x")))


@given(st.binary(max_size=200))
def test_garbage_is_a_protocol_error(data: bytes):
    """No bytes do anything but decode, or raise that."""
    for decoder in (to_worker, to_gateway, to_sink, to_source):
        try:
            decoder.decode(data)
        except ProtocolError:
            continue
        pytest.fail("random bytes are a message")


def test_the_proof_depends_on_the_key_and_hides_it():
    """Equal keys prove equally, others differ, and no key is an error."""
    assert proof(b"k") == proof(b"k") != proof(b"l")
    assert len(proof(b"k")) == 64
    with pytest.raises(ConfigError, match="empty"):
        proof(b"")
