"""Encoded messages that wait to be written, up to a bound."""

from collections import deque

MAX_MESSAGES = 10_000
MAX_BYTES = 64 << 20


class Outbox:
    """First in, first out."""

    def __init__(self, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._messages: deque[bytes] = deque()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def fits(self, data: bytes) -> bool:
        """Whether there is room; an empty one takes a message of any size."""
        small = len(self) < self._max_messages and self.num_bytes + len(data) <= self._max_bytes
        return small or not self._messages

    def push(self, data: bytes) -> None:
        """Append."""
        self._messages.append(data)
        self.num_bytes += len(data)

    def pop(self) -> bytes:
        """Take the oldest."""
        data = self._messages.popleft()
        self.num_bytes -= len(data)
        return data
