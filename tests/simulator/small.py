"""Small deployments with round times, and traces for them."""

from pathlib import Path

import msgspec

from twinfer.core.capabilities import Role
from twinfer.core.config import Config, EmulationConfig, HandoffConfig, ModelConfig, PoolConfig, RoutingConfig
from twinfer.core.traces import TraceRequest
from twinfer.simulator.cluster import Cluster
from twinfer.simulator.failures import Failure
from twinfer.simulator.hardware import hardware
from twinfer.simulator.scenario import Overheads, Scenario

MESSAGE_S = 0.001
STEP_S = 0.01
TOKENS_PER_S = 1000.0
STRETCH = 32


def a_config(prefill: int = 1, decode: int = 1, kv_mib: int = 1, **limits: int) -> Config:
    """Pools with fixed times: a thousand prompt tokens and a hundred steps per second."""
    emulation = EmulationConfig(
        num_layers=1, num_kv_heads=1, head_dim=8, prefill_tokens_per_s=TOKENS_PER_S, decode_step_ms=STEP_S * 1e3
    )
    pools = tuple(
        PoolConfig(
            name=role.value,
            role=role,
            engine="emulated",
            workers=workers,
            kv_mib=kv_mib,
            emulation=emulation,
            **limits,
        )
        for role, workers in ((Role.PREFILL, prefill), (Role.DECODE, decode))
        if workers
    )
    handoff = HandoffConfig(lease_s=2.0)
    return Config(model=(ModelConfig(id="m"),), pool=pools, handoff=handoff, routing=RoutingConfig(policy="threshold"))


def a_scenario(config: Config, *failures: Failure, max_run: int = 1 << 30, seed: int = 0) -> Scenario:
    """Simulate this."""
    parts = {pool.name: hardware(config.model[0], pool, Path("nowhere"), {}) for pool in config.pool}
    return Scenario(config, parts, Overheads(message_s=MESSAGE_S), failures, seed, max_run)


def on_devices(config: Config, device: str) -> Config:
    """The same, with the times of a device of the catalogue."""
    pools = tuple(
        msgspec.structs.replace(
            pool, emulation=msgspec.structs.replace(pool.emulation, device=device, model_shape="qwen2.5-0.5b")
        )
        for pool in config.pool
    )
    return msgspec.structs.replace(config, pool=pools)


def a_request(arrival_s: float, prompt_tokens: int, output_tokens: int, *stretches: int) -> TraceRequest:
    """One request; the stretches of 32 tokens with which its prompt begins, or a prompt like no other."""
    count = -(-prompt_tokens // STRETCH)
    own = 1_000_000 + int(arrival_s * 1e6) % 1_000_000_000
    content = (*stretches[:count], *(own + index for index in range(count - len(stretches))))
    return TraceRequest(arrival_s, prompt_tokens, output_tokens, content, STRETCH)


def unrest(cluster: Cluster) -> list[str]:
    """What living workers still hold."""
    found = []
    for one in cluster.incarnations:
        load, name = one.life.engine.loop.load(), one.life.identity.worker
        blocks = load.blocks
        if one.life.alive and (blocks.live or blocks.promised or blocks.quarantined or load.running or load.waiting):
            found.append(f"{name} holds {load}")
        if one.life.alive and (len(one.source) or len(one.sink) or one.life.engine.open_ingests):
            found.append(f"{name} has open handoffs")
    return found
