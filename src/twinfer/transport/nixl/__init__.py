"""KV over NVIDIA NIXL: UCX, and libfabric for EFA, behind the contract of every other transport. An optional extra.

The sink asks, and the source writes into a landing area of the sink's own, from where the sink copies on. NIXL is not
safe bare, and each of its traps has its answer here:

- A transfer cannot be cancelled: what is abandoned lands later. It lands in the landing area, which stays mapped until
  the agent through which it is written is destroyed; pool blocks are written by our own copy alone. So the fence is
  exact. The copy costs little, as the digest has to walk through the bytes anyway.
- A reader that dies in mid-read takes its target with it: over TCP, UCX 1.23 aborts the process that cannot send its
  answer any more (``ucs_fatal`` in ucp_request_try_send). Freed memory is readable, and a stale read of it crashes its
  former owner. So nobody reads: sources write, and nothing that they own is known to anybody else.
- Both ends must make progress, but an agent's own progress thread spins for ever. A small TCP connection beside it, the
  doorbell, says when a transfer begins and ends; both ends poll between the two, and sleep in ``recv`` otherwise.
- Nothing ends by itself. Every wait has our deadline, and the end of the doorbell tells that a peer is gone.
- Agents are not safe for threads. Each is used by one thread at a time, and by one pair of peers: what goes wrong with
  one peer is put right by destroying that agent, which takes milliseconds and harms no other.
- It neither authenticates nor encrypts: whoever reaches an agent's port can read and write the memory of its process.
  Keep it on loopback, or in a network that only trusted machines share. The doorbell answers those who know the secret
  in ``Endpoint.address``, which only workers of this cluster are told, and agents are not spoken of before that.

``library`` finds and loads NIXL, ``agent`` wraps one agent of it, ``doorbell`` is what the two ends, ``source`` and
``sink``, tell each other.
"""

from twinfer.transport.nixl.library import LOOPBACK, Fabric, nixl_available, rdma_devices
from twinfer.transport.nixl.sink import NixlPeer, NixlSink
from twinfer.transport.nixl.source import NixlSource

__all__ = ["LOOPBACK", "Fabric", "NixlPeer", "NixlSink", "NixlSource", "nixl_available", "rdma_devices"]
