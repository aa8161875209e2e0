"""KV over TCP: the sink asks, the source answers with bytes straight from its pool. Plain on loopback, else TLS 1.3.

What crosses the wire is in ``wire``; ``source`` and ``sink`` are its two ends, which meet in ``meeting`` and move bytes
in ``flow``.
"""

from twinfer.transport.tcp.sink import TcpPeer, TcpSink
from twinfer.transport.tcp.source import TcpSource

__all__ = ["TcpPeer", "TcpSink", "TcpSource"]
