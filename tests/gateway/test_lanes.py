"""Which workers a latency mode may use."""

import msgspec

from tests.fakes import MODEL, POOL
from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.config import PoolConfig
from twinfer.core.ids import Epoch, ModelId, WorkerId
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.core.service import Latency
from twinfer.core.snapshot import ClusterSnapshot, WorkerState
from twinfer.engine.assemble import emulated_capabilities
from twinfer.gateway.lanes import Lanes

POOLS = [
    PoolConfig("prefill", Role.PREFILL),
    PoolConfig("decode", Role.DECODE),
    PoolConfig("fast", Role.DECODE, latency="optimized"),
]
ID = ModelId(MODEL.id)


def snapshot(*names: str) -> ClusterSnapshot:
    """These workers."""
    roles = {pool.name: pool.role for pool in POOLS}
    capabilities = msgspec.structs.replace(emulated_capabilities(MODEL, POOL), model=ID)
    return ClusterSnapshot(
        tuple(
            WorkerState(
                WorkerIdentity(
                    WorkerId(name), Epoch("0" * 16), roles[name.rpartition("-")[0]], capabilities, "unix:/x"
                ),
                LoadReport(BlockCounts(8, 8, 0, 0), Counters()),
            )
            for name in names
        )
    )


def narrowed(latency: Latency, *names: str) -> list[str]:
    """Those that are left."""
    return [state.identity.worker for state in Lanes(POOLS).narrow(snapshot(*names), ID, latency).workers]


def test_each_mode_decodes_in_its_own_pool() -> None:
    """Prompts of both are computed by workers that do nothing else."""
    names = ("prefill-0", "decode-0", "fast-0")
    assert narrowed(Latency.STANDARD, *names) == ["prefill-0", "decode-0"]
    assert narrowed(Latency.OPTIMIZED, *names) == ["prefill-0", "fast-0"]
    assert Lanes(POOLS).is_open(snapshot(*names), ID)


def test_an_answer_is_better_than_none() -> None:
    """Where nobody of the mode is left to decode, the others do."""
    assert narrowed(Latency.OPTIMIZED, "prefill-0", "decode-0") == ["prefill-0", "decode-0"]
    assert narrowed(Latency.STANDARD, "prefill-0", "fast-0") == ["prefill-0", "fast-0"]
    assert not Lanes(POOLS).is_open(snapshot("prefill-0", "decode-0"), ID)


def test_without_such_a_pool_nothing_changes() -> None:
    """Not even the value."""
    whole = snapshot("prefill-0", "decode-0")
    assert Lanes(POOLS[:2]).narrow(whole, ID, Latency.OPTIMIZED) is whole
