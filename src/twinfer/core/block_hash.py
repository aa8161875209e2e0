"""Identity of a full KV block: keyed BLAKE2b, 128 bit, chained on the parent and salted by the tenant.

Two blocks have the same hash only when tenant, model, numeric provenance and every token up to their end are the
same. The chain's root is HMAC(cluster key, tenant, salt, fingerprint, provenance), so tenants never share a prefix.

KV that came from another provenance, and what was computed on top of it, is not the worker's own: its chain has a root
of its own (:meth:`BlockHasher.after`), so that nobody finds it who did not ask for that mixture.
"""

import hmac
import struct
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from twinfer.core.capabilities import Fingerprint
from twinfer.core.ids import TenantId

BlockHash = bytes
HASH_BYTES = 16


class BlockHasher:
    """Hashes token blocks of one model for many tenants."""

    def __init__(self, cluster_key: bytes, fingerprint: Fingerprint, provenance: str, block_tokens: int) -> None:
        self._cluster_key = cluster_key
        self._fingerprint = fingerprint
        self._context = msgspec.msgpack.encode((fingerprint, provenance))
        self.provenance = provenance
        self.block_tokens = block_tokens

    def after(self, foreign: str) -> "BlockHasher":
        """Hashes blocks in which KV of another provenance has a part, be it that they hold it or build on it."""
        mixture = f"{self.provenance} after {foreign}"
        return type(self)(self._cluster_key, self._fingerprint, mixture, self.block_tokens)

    def root(self, tenant: TenantId, salt: str = "") -> BlockHash:
        """The parent of a tenant's first block; requests with another salt of theirs share no block."""
        message = msgspec.msgpack.encode((tenant, salt, self._context))
        return hmac.digest(self._cluster_key, message, "sha256")[:HASH_BYTES]

    def extend(self, parent: BlockHash, token_ids: Sequence[int]) -> BlockHash:
        """The hash of the block that follows ``parent`` and holds exactly ``block_tokens`` tokens."""
        payload = struct.pack(f"<{len(token_ids)}I", *token_ids)
        return blake2b(payload, digest_size=HASH_BYTES, key=parent).digest()

    def chain(self, tenant: TenantId, token_ids: Sequence[int]) -> list[BlockHash]:
        """Hashes of all full blocks of a token sequence, first to last."""
        hashes: list[BlockHash] = []
        parent = self.root(tenant)
        for end in range(self.block_tokens, len(token_ids) + 1, self.block_tokens):
            parent = self.extend(parent, token_ids[end - self.block_tokens : end])
            hashes.append(parent)
        return hashes
