"""Which gateway asked for which request. All tokens of a step that concern one gateway leave in one frame."""

from typing import Protocol

from twinfer.core.ids import RequestId
from twinfer.core.messages import Busy, Done, Failed, Frame, Refused, ToGateway
from twinfer.core.tokens import Token


class GatewayOutlet(Protocol):
    """Where messages to one gateway go."""

    def send_soon(self, message: ToGateway) -> None:
        """Queue a message."""
        ...


class Sessions:
    """Which gateway asked for which request: the worker's outbox."""

    def __init__(self) -> None:
        self._by_request: dict[RequestId, GatewayOutlet] = {}

    def open(self, request_id: RequestId, stream: GatewayOutlet) -> None:
        """Answers go to this stream."""
        self._by_request[request_id] = stream

    def tell(self, request_id: RequestId, message: ToGateway) -> None:
        """Send to whoever asked; a terminal message also ends the request's session, as does a frame that is done."""
        terminal = isinstance(message, Failed | Refused | Busy) or (isinstance(message, Frame) and bool(message.done))
        stream = self._by_request.pop(request_id, None) if terminal else self._by_request.get(request_id)
        if stream is not None:
            stream.send_soon(message)

    def tell_step(self, tokens: tuple[Token, ...], done: tuple[Done, ...]) -> None:
        """One frame per gateway concerned."""
        frames: dict[int, tuple[GatewayOutlet, list[Token], list[Done]]] = {}
        last, room = None, None
        for token in tokens:  # those of one request stand together
            if token.request_id is not last:
                last = token.request_id
                found = self._by_request.get(last)
                room = None if found is None else frames.setdefault(id(found), (found, [], []))[1]
            if room is not None:
                room.append(token)
        for item in done:
            if stream := self._by_request.pop(item.request_id, None):
                frames.setdefault(id(stream), (stream, [], []))[2].append(item)
        for stream, told, its_done in frames.values():
            stream.send_soon(Frame(tuple(told), tuple(its_done)))

    def __len__(self) -> int:
        """How many are open."""
        return len(self._by_request)

    def all(self) -> list[RequestId]:
        """Requests of all gateways."""
        return list(self._by_request)

    def close(self, request_id: RequestId) -> None:
        """Nobody waits for it any more."""
        self._by_request.pop(request_id, None)

    def of(self, stream: GatewayOutlet) -> list[RequestId]:
        """Requests whose answers go to this stream."""
        return [request_id for request_id, owner in self._by_request.items() if owner is stream]
