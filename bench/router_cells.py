"""Fleets and traces on which ways of routing are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from twinfer.cli.emulation import Surroundings, simulated_pair
from twinfer.core.capabilities import Role
from twinfer.core.config import Config, PoolConfig
from twinfer.core.traces import TraceRequest
from twinfer.simulator.hardware import hardware
from twinfer.simulator.scenario import Overheads, Scenario
from twinfer.simulator.summary import Slo

OVERHEADS = Overheads(message_s=200e-6, step_s=500e-6, gateway_s=1e-3)
MAX_REQUESTS = 1 << 20
"""In work at a time: routes are compared, not what a gateway refuses."""
ROLES = (Role.PREFILL, Role.BOTH, Role.DECODE)
Shape = tuple[tuple[int, int, int], ...]
"""Of each kind of device, how many workers only prefill, do both, and only decode."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Workers.

    Attributes:
        kinds: devices; a worker lies on one of these, with the link that is sold with it.
        links: names of links by device, where another is meant.
        whole: the shape in which all that can do both do.
        shapes: ways to deal the same workers out to roles.
        tpot_s: what an answer's tokens should take.
        shrink: prompts and answers are that many times as short as in the traces.
        ttft_share: by which a trace's time to the first token is multiplied.
        time_scale: by which a device's times are.
        ttft_s: what the first token may take, by the names of traces that need another goal.
    """

    name: str
    kinds: tuple[str, ...]
    model_shape: str
    whole: Shape
    shapes: tuple[Shape, ...]
    tpot_s: float
    links: Mapping[str, str]
    shrink: int = 1
    ttft_share: float = 1.0
    time_scale: float = 1.0
    ttft_s: Mapping[str, float] = field(default_factory=dict)

    def part(self, divide: int) -> "Fleet":
        """So many times fewer workers of each role; shapes that cannot be divided are left out."""
        if divide == 1:
            return self
        whole, *shapes = (
            tuple((prefill // divide, both // divide, decode // divide) for prefill, both, decode in shape)
            for shape in (self.whole, *self.shapes)
            if not any(workers % divide for counts in shape for workers in counts)
        )
        return replace(self, name=f"{self.name}, 1/{divide} of it", whole=whole, shapes=tuple(shapes))

    def scenario(self, shape: Shape, routing: Mapping[str, object]) -> Scenario:
        """A deployment of that shape which routes like that."""
        surroundings = Surroundings(time_scale=self.time_scale)
        pools, base = [], simulated_pair(self.kinds[0], self.kinds[-1], self.model_shape, surroundings)
        templates = dict(zip((self.kinds[0], self.kinds[-1]), base.pool, strict=True))
        for device, counts in zip(self.kinds, shape, strict=True):
            for role, workers in zip(ROLES, counts, strict=True):
                if workers:
                    pools.append(self._pool(templates[device], device, role, workers))
        changes = {
            "routing": msgspec.structs.replace(base.routing, **routing),
            "gateway": msgspec.structs.replace(base.gateway, max_requests=MAX_REQUESTS),
        }
        config: Config = msgspec.structs.replace(base, pool=tuple(pools), **changes)
        links = {pool.name: self.links[pool.emulation.device] for pool in pools if pool.emulation.device in self.links}
        parts = {pool.name: hardware(config.model[0], pool, Path("nowhere"), links) for pool in pools}
        return Scenario(config, parts, OVERHEADS)

    def _pool(self, template: PoolConfig, device: str, role: Role, workers: int) -> PoolConfig:
        changes = {"name": f"{device}-{role.value}", "role": role, "workers": workers, "max_step_tokens": 2048}
        return msgspec.structs.replace(
            template, **changes, block_tokens=max(16, template.block_tokens // self.shrink), max_running=256
        )


H100 = Fleet(
    "8 x H100 over EFA, Llama 3.1 8B",
    ("h100",),
    "llama-3.1-8b",
    ((0, 8, 0),),
    (((4, 0, 4),), ((6, 0, 2),), ((4, 4, 0),)),
    0.030,
    {},
)
WAFERS = Fleet(
    "4 x trn3 and 2 pairs of CS-3, gpt-oss-120b",
    ("trn3", "cs3"),
    "gpt-oss-120b",
    ((0, 4, 0), (0, 2, 0)),
    (((4, 0, 0), (0, 0, 2)), ((3, 1, 0), (0, 0, 2)), ((2, 2, 0), (0, 0, 2)), ((2, 0, 2), (0, 0, 2))),
    0.003,
    {},
    ttft_share=0.25,
)
XEON = Fleet(
    "2 workers on two cores each of a Xeon with AMX, Qwen2.5 0.5B",
    ("xeon-amx",),
    "qwen2.5-0.5b",
    ((0, 2, 0),),
    (((1, 0, 1),), ((1, 1, 0),)),
    0.250,
    {"xeon-amx": "shm"},
    shrink=4,
    time_scale=28.0,
    ttft_s={"Mooncake conversation": 30.0},
)
"""The profile is of 56 cores. Ten or more of Mooncake's prompts come at once, which keep a worker busy for up to half a
minute however long it rested before."""
FLEETS = {"h100": H100, "wafers": WAFERS, "xeon": XEON}


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests, and how long their first tokens may take."""

    name: str
    file: str
    ttft_s: float


TRACES = {
    "code": Trace("Azure code", "azure_llm_2023_code.csv", 2.0),
    "conv": Trace("Azure conversation", "azure_llm_2023_conv.csv", 2.0),
    "mooncake": Trace("Mooncake conversation", "mooncake_fast25_conversation.jsonl", 10.0),
    "reasoning": Trace("ServeGen reasoning", "servegen_reason_deepseek-r1_1h_2rps.csv", 2.0),
}


def halves(trace: Sequence[TraceRequest], number: int, shrink: int) -> tuple[list[TraceRequest], list[TraceRequest]]:
    """The first ``number`` requests of either half of a trace, each from time 0 on, one per second on average."""
    middle = len(trace) // 2
    return _piece(trace[:middle][:number], shrink), _piece(trace[middle:][:number], shrink)


def slo(fleet: Fleet, trace: Trace) -> Slo:
    """What is good enough."""
    return Slo(fleet.ttft_s.get(trace.name, trace.ttft_s * fleet.ttft_share), fleet.tpot_s)


def _piece(requests: Sequence[TraceRequest], shrink: int) -> list[TraceRequest]:
    first, last = requests[0].arrival_s, requests[-1].arrival_s
    stretch = len(requests) / max(last - first, 1e-9)
    return [_short(replace(one, arrival_s=(one.arrival_s - first) * stretch), shrink) for one in requests]


def _short(one: TraceRequest, shrink: int) -> TraceRequest:
    """The same with all lengths divided, stretches that prompts share included."""
    return replace(
        one,
        input_tokens=max(1, -(-one.input_tokens // shrink)),
        output_tokens=max(1, -(-one.output_tokens // shrink)),
        stretch_tokens=max(1, -(-one.stretch_tokens // shrink)),
    )
