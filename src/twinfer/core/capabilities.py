"""What a worker can do and whose KV it can read. Published at connect time; peers negotiate, nobody guesses."""

from enum import StrEnum
from hashlib import blake2b

import msgspec

from twinfer.core.ids import Epoch, ModelId, WorkerId
from twinfer.core.layout import KVLayout


class Role(StrEnum):
    """Which phases a worker serves."""

    PREFILL = "prefill"
    DECODE = "decode"
    BOTH = "both"

    @property
    def prefills(self) -> bool:
        """Whether it computes prompts for others."""
        return self is not Role.DECODE

    @property
    def decodes(self) -> bool:
        """Whether it generates; such a worker can also compute a prompt itself (aggregated)."""
        return self is not Role.PREFILL


class Fingerprint(msgspec.Struct, frozen=True):
    """What must be equal for one worker's KV to mean the same on another. Precision and block size are not in it.

    Args:
        weights: digest of the checkpoint, before any quantisation.
        tokenizer: digest of the tokenizer file; empty where there is none.
        num_layers: decoder layers that keep KV.
        num_kv_heads: KV heads of the whole model.
        head_dim: elements of a key.
        rope: convention and parameters of the rotary embedding, in words.
        packing: empty for the canonical layout; else the kernel's own packing, which only an equal one can read.
    """

    weights: str
    tokenizer: str
    num_layers: int
    num_kv_heads: int
    head_dim: int
    rope: str
    packing: str = ""

    def digest(self) -> str:
        """A short name of this fingerprint for grants and logs."""
        return blake2b(msgspec.msgpack.encode(self), digest_size=8).hexdigest()

    def difference(self, other: "Fingerprint") -> str | None:
        """The first field in which the two differ, in words; ``None`` when equal."""
        for field in self.__struct_fields__:
            ours, theirs = getattr(self, field), getattr(other, field)
            if ours != theirs:
                return f"{field} differs: {ours!r} here, {theirs!r} there"
        return None


class Capabilities(msgspec.Struct, frozen=True):
    """What an engine offers.

    Args:
        model: canonical id of the model it serves.
        fingerprint: identity of its KV.
        layout: its pool's layout.
        provenance: weight format and KV dtype that produce its blocks, such as ``bf16/fp32``.
        num_blocks: size of its pool.
        max_context_tokens: prompt and answer together, at most.
        vocab_size: token ids are below it.
        sight_tokens: positions back to which any query looks, with its own; KV further back is let go while an answer
            is computed. 0 where some layer sees everything.
        grammars: whether its answers can be held to a grammar.
    """

    model: ModelId
    fingerprint: Fingerprint
    layout: KVLayout
    provenance: str
    num_blocks: int
    max_context_tokens: int
    vocab_size: int
    sight_tokens: int = 0
    grammars: bool = False


class Endpoint(msgspec.Struct, frozen=True):
    """Where a transport's source listens.

    Args:
        transport: ``inproc``, ``shm``, ``tcp`` or ``nixl``.
        address: in that transport's own words, such as ``127.0.0.1:40123``.
        host: boot id of the machine, so that a peer knows whether it is on the same one.
    """

    transport: str
    address: str
    host: str


class WorkerIdentity(msgspec.Struct, frozen=True):
    """The first thing a worker says about itself on any connection."""

    worker: WorkerId
    epoch: Epoch
    role: Role
    capabilities: Capabilities
    control: str
    """Address of its gRPC server, for the control stream of a handoff."""
    endpoints: tuple[Endpoint, ...] = ()
