"""Twinfer's rows: one configuration each."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from bench.published.launch import Program
from bench.published.systems import CHUNK_TOKENS, CONTEXT_TOKENS, KV_MIB, MODEL, Site, System
from twinfer.core.capabilities import Role
from twinfer.core.config import Config, IdentityConfig, ModelConfig, PoolConfig, RoutingConfig, WeightFormat
from twinfer.core.config_text import dump_config

START_S = 8.0
Policy = Literal["cost", "aggregated", "disaggregated"]


def pool(name: str, role: Role, weights: WeightFormat, workers: int = 1, of_all_kv: float = 0.5) -> PoolConfig:
    """A native pool; random weights make guessing ahead pointless, so nobody does."""
    return PoolConfig(
        name=name,
        role=role,
        weights=weights,
        workers=workers,
        kv_mib=int(KV_MIB * of_all_kv),
        max_step_tokens=CHUNK_TOKENS,
        speculation="off",
    )


def configured(pools: tuple[PoolConfig, ...], policy: Policy) -> Callable[[Site], list[Program]]:
    """``twinfer serve`` with these pools, all else as it is by default."""

    def programs(site: Site) -> list[Program]:
        model = ModelConfig(id=MODEL, source=str(site.checkpoint), max_context_tokens=CONTEXT_TOKENS)
        identity = IdentityConfig(database=f"sqlite:///{site.folder / 'twinfer.db'}")
        config = Config(model=(model,), pool=pools, routing=RoutingConfig(policy=policy), identity=identity)
        return [served(config, site)]

    return programs


def served(config: Config, site: Site) -> Program:
    """``twinfer serve`` with this configuration, written beside its log."""
    path: Path = site.folder / "twinfer.toml"
    path.write_text(dump_config(config), encoding="utf-8")
    port = next(site.ports)
    command = [sys.executable, "-m", "twinfer", "serve", "--port", str(port), "--config", str(path)]
    return Program("twinfer", command, port, "/readyz")


def disaggregated(weights: WeightFormat) -> System:
    """A prefill worker and a decode worker, a core each; every prompt is handed over."""
    pools = (pool("prefill", Role.PREFILL, weights), pool("decode", Role.DECODE, weights))
    title = "Twinfer, prefill and decode on a core each"
    programs = configured(pools, "disaggregated")
    return System(f"twinfer-disaggregated-{weights}", title, "twinfer", weights, "disaggregated", START_S, programs)


def aggregated(weights: WeightFormat, workers: int) -> System:
    """One worker with both cores, or two with one each."""
    pools = (pool("both", Role.BOTH, weights, workers, 1 / workers),)
    title = f"Twinfer, {'one worker' if workers == 1 else 'two workers'} for both phases"
    programs = configured(pools, "aggregated")
    return System(f"twinfer-aggregated-{workers}-{weights}", title, "twinfer", weights, "aggregated", START_S, programs)


def routed(weights: WeightFormat) -> System:
    """Two workers that do either phase, and a router that decides for each request."""
    pools = (pool("both", Role.BOTH, weights, 2),)
    title = "Twinfer, the router free to choose"
    return System(f"twinfer-routed-{weights}", title, "twinfer", weights, "routed", START_S, configured(pools, "cost"))


def specialised() -> System:
    """Prompts in bf16, answers with weights of eight bits on the same KV."""
    decode = pool("decode", Role.DECODE, "int8")
    pools = (pool("prefill", Role.PREFILL, "bf16"), msgspec.structs.replace(decode, accept=("bf16/bf16",)))
    title = "Twinfer, prefill in bf16 and decode in int8"
    programs = configured(pools, "disaggregated")
    return System("twinfer-specialised", title, "twinfer", "bf16 + int8", "specialised", START_S, programs)
