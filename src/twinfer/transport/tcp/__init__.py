"""KV over TCP: the sink asks, the source answers with bytes straight from its pool. Plain, so loopback only.

What crosses the wire is in ``wire``; ``source`` and ``sink`` are its two ends.
"""

from twinfer.transport.tcp.sink import TcpPeer, TcpSink
from twinfer.transport.tcp.source import TcpSource
from twinfer.transport.tcp.wire import TCP_CAPABILITIES

__all__ = ["TCP_CAPABILITIES", "TcpPeer", "TcpSink", "TcpSource"]
