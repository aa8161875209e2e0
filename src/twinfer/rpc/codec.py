"""Messages as bytes: msgpack of core's types, in the frames of gRPC. Every call proves that it knows the cluster key.

    service twinfer.Worker
      Gateway   stream ToWorker -> stream ToGateway
      Handoff   stream ToSink   -> stream ToSource
      Report    nothing         -> LoadReport

A caller ends its side of a stream with an empty message: gRPC's server cannot tell at once a side that was ended from
a caller that was lost.
"""

import hmac
from typing import Generic, TypeVar

import msgspec

from twinfer.core.errors import ConfigError, ProtocolError
from twinfer.core.load import LoadReport
from twinfer.core.messages import ToGateway, ToSink, ToSource, ToWorker

SERVICE = "twinfer.Worker"
GATEWAY = "Gateway"
HANDOFF = "Handoff"
REPORT = "Report"
PROOF_HEADER = "twinfer-proof"
GOODBYE = b""
MAX_MESSAGE_BYTES = 64 << 20

T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()


class Decoder(Generic[T]):
    """Reads messages of one union; ``name`` of it is for errors."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[T], name: str) -> None:
        self._decoder = decoder
        self._name = name

    def decode(self, data: bytes) -> T:
        """The message.

        Raises:
            ProtocolError: it is not one of these, or lacks a field; the two sides may be of different versions.
        """
        try:
            return self._decoder.decode(data)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"a message of {len(data)} bytes is no {self._name}: {error}") from error


to_worker: Decoder[ToWorker] = Decoder(msgspec.msgpack.Decoder(ToWorker), "ToWorker")
to_gateway: Decoder[ToGateway] = Decoder(msgspec.msgpack.Decoder(ToGateway), "ToGateway")
to_sink: Decoder[ToSink] = Decoder(msgspec.msgpack.Decoder(ToSink), "ToSink")
to_source: Decoder[ToSource] = Decoder(msgspec.msgpack.Decoder(ToSource), "ToSource")
load_report: Decoder[LoadReport] = Decoder(msgspec.msgpack.Decoder(LoadReport), "LoadReport")


def encode(message: object) -> bytes:
    """A message of any of these types."""
    return _encoder.encode(message)


def proof(key: bytes) -> str:
    """What shows, without telling it, that a caller holds the cluster key.

    Raises:
        ConfigError: the key is empty.
    """
    if not key:
        raise ConfigError("the cluster key is empty: give all workers and gateways the same secret")
    return hmac.digest(key, b"twinfer control v1", "sha256").hex()
