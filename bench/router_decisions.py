"""How long a routing decision takes: ``python -m bench.router_decisions``.

A decision is all that a gateway does between a request and its route: hits in the index of prefixes, hashing of the
prompt as far as any worker has it, what is believed of every worker's costs, and the choice. All workers do both
phases, so that every pair of them is a candidate, and half of the prompts begin with a prefix that some of them hold.
"""

import argparse
import random
import time

import msgspec

from twinfer.core.block_events import BlockEvents
from twinfer.core.block_hash import BlockHasher
from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.config import EmulationConfig, ModelConfig, PoolConfig, RoutingConfig
from twinfer.core.cost import Backlog, LinkCost, StepCost
from twinfer.core.ids import Epoch, ModelId, RequestId, TenantId, WorkerId
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.core.request import GenerationRequest, Stopping
from twinfer.core.service import NUM_RANKS
from twinfer.core.snapshot import ClusterSnapshot, WorkerState
from twinfer.engine.assemble import emulated_capabilities
from twinfer.router.cost import CostBook
from twinfer.router.policy import choose_route
from twinfer.router.prefix_index import PrefixIndex

KEY, TENANT, MODEL = b"a key for one benchmark", TenantId("tenant"), ModelConfig(id="m")
VOCABULARY = 32_000
COST = RoutingConfig(policy="cost")


class World:
    """Workers with their reports, and the prefixes that they hold."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._chance = random.Random(arguments.seed)
        self._length = arguments.prompt_tokens
        pool = PoolConfig(name="both", role=Role.BOTH, engine="emulated", emulation=EmulationConfig(vocab_size=32_000))
        self._capabilities = emulated_capabilities(MODEL, pool)
        size = self._capabilities.layout.block_tokens
        hasher = BlockHasher(KEY, self._capabilities.fingerprint, self._capabilities.provenance, size)
        self.identities = [
            WorkerIdentity(WorkerId(f"w{n}"), Epoch("e"), Role.BOTH, self._capabilities, "")
            for n in range(arguments.workers)
        ]
        self.book, self.index = CostBook(), PrefixIndex(KEY)
        self.prefixes = [self._tokens(self._chance.randrange(1, 8) * size) for _ in range(arguments.prefixes)]
        held: dict[WorkerId, list[bytes]] = {identity.worker: [] for identity in self.identities}
        for prefix in self.prefixes:
            for identity in self._chance.sample(self.identities, min(3, len(self.identities))):
                held[identity.worker] += hasher.chain(TENANT, prefix)
        for identity in self.identities:
            self.index.met(identity)
            self.index.apply(identity.worker, BlockEvents(0, b"".join(held[identity.worker]), everything=True))
        self.loads = {identity.worker: self._load() for identity in self.identities}
        for worker, load in self.loads.items():
            self.book.reported(worker, load, 0.0)

    def request(self, number: int) -> GenerationRequest:
        """Half of them begin with a known prefix."""
        prefix = self._chance.choice(self.prefixes) if number % 2 else ()
        prompt = prefix + self._tokens(self._length - len(prefix))
        return GenerationRequest(RequestId(f"r{number}"), ModelId(MODEL.id), TENANT, prompt, Stopping(100))

    def decide(self, request: GenerationRequest, now: float) -> None:
        """One decision."""
        states = tuple([self._state(identity, now) for identity in self.identities])
        snapshot = ClusterSnapshot(states, answers=self.book.answers)
        choose_route(request, snapshot, COST, hits=self.index.hits(request))

    def _state(self, identity: WorkerIdentity, now: float) -> WorkerState:
        load, book, worker = self.loads[identity.worker], self.book, identity.worker
        cost, share = book.cost(worker, load, now), book.prefill_share(worker, now)
        sent, links = Backlog(500, 125e3), book.links(worker, load, now)
        ahead = load.backlog + sent
        before = (ahead,) * NUM_RANKS
        return WorkerState(identity, load, 9, 9000, 9, sent, ahead, before, cost, share, links)

    def _load(self) -> LoadReport:
        rows = self._chance.randrange(64)
        cost = StepCost(0.004, 2e-5, 1e-10, 5e-5, 1e-9, self._chance.choice([1.0, 1.1, 5.0]), 2048, 0.9)
        links = {identity.worker: LinkCost(0.001, 1e-10, 1.0, 3) for identity in self.identities}
        return LoadReport(
            BlockCounts(4000, 3000, 500, 500),
            Counters(steps=1),
            backlog=Backlog(self._chance.randrange(8000), 1e6),
            decode_rows=rows,
            decode_context=rows * 1000,
            cost=cost,
            links=links,
        )

    def _tokens(self, count: int) -> tuple[int, ...]:
        return tuple(self._chance.choices(range(VOCABULARY), k=max(count, 1)))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--prefixes", type=int, default=10_000)
    parser.add_argument("--prompt-tokens", type=int, default=4096)
    parser.add_argument("--decisions", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    world, taken, computed = World(arguments), [], []
    requests = [world.request(number) for number in range(arguments.decisions)]
    for number, request in enumerate(requests):
        began, cpu = time.perf_counter(), time.thread_time()
        world.decide(request, 1.0 + number / 1000)
        computed.append((time.thread_time() - cpu) * 1e3)
        taken.append((time.perf_counter() - began) * 1e3)
    figures = {
        "workers": arguments.workers,
        "cached_blocks": len(world.index),
        "wall_ms": percentiles(taken),
        "cpu_ms": percentiles(computed),
    }
    print(msgspec.json.encode(figures).decode())
    return 0


def percentiles(values: list[float]) -> dict[str, float]:
    """Three of them."""
    ordered = sorted(values)
    return {f"p{percent}": round(ordered[len(ordered) * percent // 100], 3) for percent in (50, 90, 99)}


if __name__ == "__main__":
    raise SystemExit(main())
