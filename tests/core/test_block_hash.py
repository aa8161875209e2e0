"""Block identity: equal only when tenant, model, provenance and every token up to the block's end are."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import MODEL, POOL
from twinfer.core.block_hash import BlockHasher
from twinfer.core.ids import TenantId
from twinfer.engine.assemble import emulated_capabilities

FINGERPRINT = emulated_capabilities(MODEL, POOL).fingerprint
A, B = TenantId("a"), TenantId("b")
TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=20)


def hasher(key: bytes = b"key", provenance: str = "bf16/bf16") -> BlockHasher:
    """A hasher of blocks of four tokens."""
    return BlockHasher(key, FINGERPRINT, provenance, 4)


@given(first=TOKENS, second=TOKENS)
def test_chains_agree_exactly_on_the_common_prefix(first: list[int], second: list[int]) -> None:
    """Block i is equal if and only if all tokens up to its end are."""
    pairs = zip(hasher().chain(A, first), hasher().chain(A, second), strict=False)
    for index, (ours, theirs) in enumerate(pairs):
        end = 4 * (index + 1)
        assert (first[:end] == second[:end]) == (ours == theirs)


def test_everything_else_salts_the_chain() -> None:
    """Another tenant, cluster, precision or model shares nothing."""
    tokens = list(range(8))
    other_model = msgspec.structs.replace(FINGERPRINT, weights="other")
    chains = [
        hasher().chain(A, tokens),
        hasher().chain(B, tokens),
        hasher(key=b"other").chain(A, tokens),
        hasher(provenance="int8/bf16").chain(A, tokens),
        BlockHasher(b"key", other_model, "bf16/bf16", 4).chain(A, tokens),
    ]
    assert len({block for chain in chains for block in chain}) == 10
    assert len({hasher().root(tenant, salt) for tenant in (A, B) for salt in ("", "x", "y")}) == 6
