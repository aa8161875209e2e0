"""Simulated workers that change their roles, by the product's policy and state machine."""

from collections.abc import Sequence

import msgspec

from tests.simulator.small import a_config, a_request, a_scenario, unrest
from twinfer.core.capabilities import Role
from twinfer.core.config import Config, ElasticConfig
from twinfer.core.ids import RequestId
from twinfer.core.messages import Become
from twinfer.simulator.cluster import Cluster
from twinfer.simulator.recorder import Recorder
from twinfer.simulator.run import replay
from twinfer.simulator.schedule import Schedule

ELASTIC = ElasticConfig(enabled=True, prefill_tokens=400, decode_requests=6, window_s=0.5, cooldown_s=3.0)
PROMPTS = [a_request(0.1 * number, 300, 2, number) for number in range(60)]
ANSWERS = [a_request(8.0 + 0.05 * number, 70, 80, number) for number in range(160)]


def elastic(config: Config) -> Config:
    """The same, with roles that move."""
    return msgspec.structs.replace(config, elastic=ELASTIC)


def test_roles_follow_the_load() -> None:
    """Prompts, then answers: workers go where the work is, every request is answered whole, and nothing is left."""
    recorder, cluster = replay(a_scenario(elastic(a_config(2, 2))), PROMPTS + ANSWERS)
    roles = [move.role for move in recorder.moves]
    assert {Role.PREFILL, Role.DECODE} == set(roles)
    assert Role.PREFILL is roles[0]
    assert all(move.took_s is not None and move.took_s < 5.0 for move in recorder.moves)
    expected = [("ok", one.output_tokens) for one in PROMPTS + ANSWERS]
    assert expected == [(one.outcome, one.num_tokens) for one in recorder.journeys]
    assert [] == unrest(cluster)


def test_long_answers_go_on_elsewhere() -> None:
    """What is not over when the drain is goes back to the gateway, and ends on another worker."""
    config = elastic(a_config(1, 2))
    config = msgspec.structs.replace(config, handoff=msgspec.structs.replace(config.handoff, drain_s=0.1))
    trace = [a_request(0.0, 70, 400, 1), a_request(0.0, 70, 400, 2), *PROMPTS]
    recorder, cluster = replay(a_scenario(config), trace)
    assert recorder.moves[0].role is Role.PREFILL
    assert [("ok", 400)] * 2 == [(one.outcome, one.num_tokens) for one in recorder.journeys[:2]]
    assert {"ok"} == {one.outcome for one in recorder.journeys}
    assert sum(recorder.replans.values()) > 0
    assert [] == unrest(cluster)


def crowded(
    config: Config, max_busy_s: float, arrivals: Sequence[float], schedule: Schedule, recorder: Recorder
) -> Cluster:
    """Workers that drain at once, and requests of which the KV of one fits into a decode worker."""
    handoff = msgspec.structs.replace(config.handoff, drain_s=0.1, lease_s=100.0, max_busy_s=max_busy_s)
    cluster = Cluster(a_scenario(msgspec.structs.replace(config, handoff=handoff)), schedule, recorder)
    for number, at_s in enumerate(arrivals):
        schedule.at(at_s, cluster.gateway.arrive, number, a_request(at_s, 12000, 400, number))
    return cluster


def test_who_waits_for_room_is_handed_back_too() -> None:
    """A worker turns as soon as its drain is over, and who waited there for room ends on another worker."""
    recorder, schedule = Recorder(1.0), Schedule()
    cluster = crowded(a_config(1, 2), 100.0, [0.0] * 4, schedule, recorder)
    turning, roles = cluster.incarnations[2], list[Role]()
    schedule.at(1.0, turning.take, Become(RequestId("turn"), Role.PREFILL))
    schedule.at(1.2, lambda: roles.append(turning.life.identity.role))
    schedule.run()
    assert [Role.PREFILL] == roles
    assert [("ok", 400)] * 4 == [(one.outcome, one.num_tokens) for one in recorder.journeys]
    assert [] == unrest(cluster)


def test_answer_that_is_handed_back_again_is_not_lost() -> None:
    """It waits on a full worker that changes its role too, later than a request may wait before it begins."""
    recorder, schedule = Recorder(1.0), Schedule()
    cluster = crowded(a_config(3, 3), 0.5, [0.3 * number for number in range(3)], schedule, recorder)
    for at_s, turning in ((13.0, cluster.incarnations[5]), (14.0, cluster.incarnations[3])):
        schedule.at(at_s, turning.take, Become(RequestId(f"turn-{at_s}"), Role.PREFILL))
    schedule.run()
    assert recorder.replans["busy"] >= 3
    assert [("ok", 400)] * 3 == [(one.outcome, one.num_tokens) for one in recorder.journeys]
    assert [] == unrest(cluster)


def test_off_unless_asked_for() -> None:
    """A fleet that is not elastic keeps its shape."""
    recorder, _ = replay(a_scenario(a_config(2, 2)), PROMPTS)
    assert [] == recorder.moves
