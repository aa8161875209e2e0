"""A worker or a link turns ten times slower: the cost router learns it from reports, and forgives it when over."""

import statistics
from itertools import accumulate
from random import Random

import msgspec
import pytest

from tests.simulator.small import a_config, a_request, a_scenario, on_devices
from twinfer.core.capabilities import Role
from twinfer.core.config import Config
from twinfer.core.traces import TraceRequest
from twinfer.simulator.failures import Failure
from twinfer.simulator.recorder import Journey
from twinfer.simulator.run import simulate

BEGIN_S, LASTS_S, END_S = 20.0, 20.0, 80.0
NOTICE_S = 5.0
PER_S = 20


def routed_by_cost(config: Config) -> Config:
    """Nothing but predicted costs decides."""
    return msgspec.structs.replace(config, routing=msgspec.structs.replace(config.routing, policy="cost"))


def arrivals(prompt_tokens: int, output_tokens: int) -> list[TraceRequest]:
    """Requests at random times, the same ones every time."""
    chance = Random(1)
    times = accumulate(chance.expovariate(PER_S) for _ in range(int(END_S * PER_S)))
    return [a_request(at, prompt_tokens, output_tokens) for at in times]


def between(journeys: list[Journey], first_s: float, last_s: float) -> list[Journey]:
    """Those that came in this time."""
    return [one for one in journeys if first_s <= one.arrived < last_s]


def tenths(values: list[float]) -> float:
    """What nine of ten do not exceed."""
    return statistics.quantiles(values, n=10)[-1]


@pytest.mark.parametrize("role", [Role.BOTH, Role.DECODE])
def test_a_slow_worker_is_avoided_and_used_again(role: Role) -> None:
    """Five seconds after it became slow, or quick again, requests do not feel it; at last it has its share."""
    config = routed_by_cost(on_devices(a_config(2 if role is Role.DECODE else 0, 2, kv_mib=64), "xeon-amx"))
    pools = tuple(
        msgspec.structs.replace(pool, role=role) if pool.role is Role.DECODE else pool for pool in config.pool
    )
    config = msgspec.structs.replace(config, pool=pools)
    trace = arrivals(64, 8)
    failure = Failure("decode-0", BEGIN_S, LASTS_S, False, slower=10.0)
    recorder = simulate(a_scenario(config, failure), trace)
    before = tenths([one.tpot_s or 0.0 for one in between(recorder.journeys, 5.0, BEGIN_S)])
    for first_s, last_s in ((BEGIN_S + NOTICE_S, BEGIN_S + LASTS_S), (BEGIN_S + LASTS_S + NOTICE_S, END_S)):
        assert tenths([one.tpot_s or 0.0 for one in between(recorder.journeys, first_s, last_s)]) < 2 * before
    busy = {name: worker.busy.means_over(END_S, int(END_S)) for name, worker in recorder.workers.items()}
    again = int(BEGIN_S + LASTS_S + NOTICE_S)
    shares = [sum(busy[f"decode-{index}"][again:]) for index in range(2)]
    assert shares[0] > 0.15 * sum(shares)


def test_a_slow_link_is_avoided_and_used_again() -> None:
    """Handoffs over it stop within five seconds, and begin again within five of its recovery."""
    config = routed_by_cost(on_devices(a_config(1, 2, kv_mib=64), "xeon-amx"))
    trace = arrivals(512, 4)
    failure = Failure("decode-0", BEGIN_S, LASTS_S, True, slower=1e4)
    recorder = simulate(a_scenario(config, failure), trace)
    before = tenths([one.tpot_s or 0.0 for one in between(recorder.journeys, 5.0, BEGIN_S)])
    for first_s, last_s in ((BEGIN_S + NOTICE_S, BEGIN_S + LASTS_S), (BEGIN_S + LASTS_S + NOTICE_S, END_S)):
        assert tenths([one.tpot_s or 0.0 for one in between(recorder.journeys, first_s, last_s)]) < 2 * before
