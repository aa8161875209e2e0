"""Small builders that many tests share. Nothing in here stands in for a part of the product."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinfer.core.capabilities import Role
from twinfer.core.clock import Clock, ManualClock
from twinfer.core.config import EmulationConfig, ModelConfig, PoolConfig
from twinfer.core.ids import ModelId, RequestId, TenantId
from twinfer.core.request import GenerationRequest, Sampling, Stopping
from twinfer.engine.assemble import assemble, emulated_capabilities
from twinfer.engine.emulated import EmulatedRunner
from twinfer.engine.paged import PagedEngine
from twinfer.engine.token_states import splitmix64, token_states

MODEL = ModelConfig(id="test.model-v1:0")
KEY = b"a cluster key for tests"
VOCAB = 1000
EMULATION = EmulationConfig(num_layers=1, num_kv_heads=1, head_dim=8, vocab_size=VOCAB)
POOL = PoolConfig(name="pool", role=Role.BOTH, engine="emulated", kv_mib=1, block_tokens=4, emulation=EMULATION)


def a_request(
    prompt: Sequence[int], max_tokens: int = 4, request_id: str = "r", tenant: str = "t", deadline_s: float = 600.0
) -> GenerationRequest:
    """A greedy request."""
    return GenerationRequest(
        RequestId(request_id),
        ModelId(MODEL.id),
        TenantId(tenant),
        tuple(prompt),
        Stopping(max_tokens),
        Sampling(temperature=0.0),
        deadline_s=deadline_s,
    )


class SmallEngine:
    """An emulated engine with its memory, its size given in blocks, and perhaps with a host tier of so many more."""

    def __init__(
        self, num_blocks: int = 64, pool: PoolConfig = POOL, clock: Clock | None = None, num_host_blocks: int = 0
    ) -> None:
        layout = emulated_capabilities(MODEL, pool).layout
        self.memory = bytearray((num_blocks + num_host_blocks) * layout.block_bytes)
        self.clock = clock or ManualClock()
        self.engine: PagedEngine = _sized(pool, num_blocks, self.memory, self.clock)
        self.engine.use_host_tier(memoryview(self.memory), pool.max_host_fraction)

    def run(self, max_steps: int = 10_000) -> dict[str, list[int]]:
        """Step until nothing is left to do; output tokens by request."""
        output: dict[str, list[int]] = {}
        for _ in range(max_steps):
            outcome = self.engine.step()
            if outcome is None:
                return output
            for token in outcome.tokens:
                assert len(output.setdefault(token.request_id, [])) == token.index
                output[token.request_id].append(token.token_id)
        raise AssertionError(f"not done after {max_steps} steps")


def token_elements(
    tokens: Sequence[int], tenant: str = "t", emulation: EmulationConfig = EMULATION
) -> NDArray[np.int64]:
    """The KV elements of each position that an emulated engine must hold, worked out from the tokens alone."""
    lanes = np.arange(2 * emulation.num_layers * emulation.num_kv_heads * emulation.head_dim, dtype=np.uint64)
    states = token_states(tokens, TenantId(tenant), seed=emulation.seed)
    return (splitmix64(states[:, None] ^ splitmix64(lanes)) >> np.uint64(60)).astype(np.int64) - 8


def virtual_fold(tokens: Sequence[int], tenant: str = "t") -> int:
    """What reading back the virtual KV of these tokens must come to, worked out from the tokens alone."""
    words = [int(word) for word in splitmix64(token_states(tokens, TenantId(tenant)))]
    weights = [int(weight) for weight in splitmix64(np.arange(len(tokens), dtype=np.uint64))]
    halves = ((number & 0xFFFFFFFF, number >> 32) for number in words)
    odd = (((number & 0xFFFFFFFF) | 1, (number >> 32) | 1) for number in weights)
    return sum(key * first + value * second for (key, value), (first, second) in zip(halves, odd, strict=True)) % 2**32


def expected_output(
    prompt: Sequence[int], num_tokens: int, emulation: EmulationConfig = EMULATION, tenant: str = "t"
) -> list[int]:
    """What the emulated engine must answer, worked out from the tokens alone, without any KV."""
    tokens = list(prompt)
    if emulation.kv == "virtual":
        for _ in range(num_tokens):
            total = np.array([virtual_fold(tokens, tenant)], np.uint64)
            tokens.append(int(splitmix64(total)[0] % np.uint64(emulation.vocab_size)))
        return tokens[len(prompt) :]
    elements = 2 * emulation.num_layers * emulation.num_kv_heads * emulation.head_dim
    lanes = np.arange(elements, dtype=np.uint64)
    weights = splitmix64(lanes ^ np.uint64(0x5EED)) | np.uint64(1)
    for _ in range(num_tokens):
        rows = token_elements(tokens, tenant, emulation)
        folded = (rows.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
        positions = np.arange(len(tokens), dtype=np.uint64)
        total = splitmix64(folded ^ splitmix64(positions)).sum(dtype=np.uint64)
        tokens.append(int(splitmix64(np.array([total]))[0] % np.uint64(emulation.vocab_size)))
    return tokens[len(prompt) :]


def _sized(pool: PoolConfig, num_blocks: int, memory: bytearray, clock: Clock) -> PagedEngine:
    found = emulated_capabilities(MODEL, pool)
    capabilities = msgspec.structs.replace(
        found,
        num_blocks=num_blocks,
        max_context_tokens=min(found.max_context_tokens, num_blocks * pool.block_tokens),
    )
    runner = EmulatedRunner(memoryview(memory), found.layout, found.vocab_size, pool.emulation, clock)
    return assemble(pool, capabilities, runner, KEY, clock)
