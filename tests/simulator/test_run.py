"""Whole simulations: small ones by hand, arbitrary ones by what must hold of them all."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.small import (
    MESSAGE_S,
    STEP_S,
    TOKENS_PER_S,
    a_config,
    a_request,
    a_scenario,
    on_devices,
    unrest,
)
from twinfer.core.errors import ConfigError
from twinfer.core.traces import TraceRequest
from twinfer.simulator.failures import Failure
from twinfer.simulator.recorder import Journey, Recorder
from twinfer.simulator.run import replay, simulate

TRACES = st.lists(
    st.tuples(
        st.floats(0, 4),
        st.integers(1, 400),
        st.integers(1, 60),
        st.lists(st.integers(0, 3), max_size=6),
    ),
    min_size=1,
    max_size=14,
).map(lambda rows: sorted((a_request(at, size, out, *like) for at, size, out, like in rows), key=lambda r: r.arrival_s))
FAILURES = st.lists(
    st.builds(
        Failure,
        st.sampled_from(["prefill-0", "prefill-1", "decode-0", "decode-1"]),
        st.floats(0, 5),
        st.floats(0.01, 4),
        st.booleans(),
    ),
    max_size=3,
)


def seen(recorder: Recorder) -> list[tuple[object, ...]]:
    """What clients saw, times to a nanosecond."""
    return [_seen(one) for one in recorder.journeys]


def _seen(one: Journey) -> tuple[object, ...]:
    times = (one.first_token, one.last_token)
    return (one.outcome, one.num_tokens, one.cached_tokens, *(None if at is None else round(at, 9) for at in times))


def counted(recorder: Recorder) -> dict[str, tuple[int, ...]]:
    """What workers did."""
    return {
        name: (one.steps, one.prefill_tokens, one.cached_tokens, one.decode_tokens, one.preemptions, one.peak_held)
        for name, one in recorder.workers.items()
    }


def test_a_handoff_by_hand() -> None:
    """Reserve, grant and prefill are three messages; then the prompt, its KV, its seal, and the tokens."""
    scenario = a_scenario(a_config())
    recorder = simulate(scenario, [a_request(0.0, 100, 5)])
    (journey,) = recorder.journeys
    prefilled = 3 * MESSAGE_S + 100 / TOKENS_PER_S
    assert journey.first_token == pytest.approx(prefilled + MESSAGE_S)
    hardware = scenario.hardware["decode"]
    moved_s = 100 * hardware.capabilities.layout.token_bytes / hardware.port().bytes_per_s + hardware.port().latency_s
    committed = prefilled + MESSAGE_S + moved_s
    assert journey.last_token == pytest.approx(committed + 4 * STEP_S + MESSAGE_S)
    assert ("ok", 5, True) == (journey.outcome, journey.num_tokens, journey.disaggregated)
    assert [(pytest.approx(moved_s), 100 * hardware.capabilities.layout.token_bytes)] == recorder.handoffs


def test_a_beginning_that_both_workers_have_is_not_fetched() -> None:
    """The prefill worker is not asked for room for what it is known to have; what only the other has is fetched."""
    both = [a_request(2.0 * turn, 320 + turn, 5, *range(10)) for turn in range(4)]
    recorder = simulate(a_scenario(a_config()), both)
    assert (["ok"] * 4, {}) == ([one.outcome for one in recorder.journeys], recorder.fetches)
    answered = a_request(0.0, 40, 5, 0, 1), *(a_request(2.0 + n, 320, 5, *range(8)) for n in range(2))
    assert {} == simulate(a_scenario(a_config()), answered).fetches


def test_a_short_prompt_by_hand() -> None:
    """It is computed where it is decoded."""
    recorder = simulate(a_scenario(a_config()), [a_request(0.0, 10, 3)])
    (journey,) = recorder.journeys
    assert journey.first_token == pytest.approx(2 * MESSAGE_S + 10 / TOKENS_PER_S)
    assert journey.last_token == pytest.approx(2 * MESSAGE_S + 10 / TOKENS_PER_S + 2 * STEP_S)
    assert (False, 0) == (journey.disaggregated, len(recorder.handoffs))


def test_a_queue_by_hand() -> None:
    """Two prompts at once that do not fit into one step: the second waits for the first."""
    recorder = simulate(a_scenario(a_config(max_step_tokens=512)), [a_request(0.0, 500, 2), a_request(0.0, 500, 2, 9)])
    first, second = (journey.first_token or 0.0 for journey in recorder.journeys)
    assert first == pytest.approx(4 * MESSAGE_S + 0.512)
    assert second == pytest.approx(4 * MESSAGE_S + 1.0)


def test_a_prefix_is_computed_once() -> None:
    """The next prompt that begins alike finds the full blocks of what is alike."""
    trace = [a_request(0.0, 256, 2, 1, 2, 3), a_request(2.0, 256, 2, 1, 2, 3)]
    recorder = simulate(a_scenario(a_config()), trace)
    assert 96 == recorder.workers["prefill-0"].cached_tokens
    assert [0, 96] == [journey.cached_tokens for journey in recorder.journeys]
    (_, whole), (_, rest) = recorder.handoffs
    assert rest / 160 == whole / 256


def test_too_long_a_prompt_is_refused() -> None:
    """What no worker can hold is said at once."""
    recorder = simulate(a_scenario(a_config()), [a_request(0.0, 40_000, 2)])
    assert ["too long"] == [journey.outcome for journey in recorder.journeys]


def test_two_sources_share_the_way_into_one_sink() -> None:
    """With KV that takes longer to move than prompts to compute, the second handoff takes twice as long."""
    config = a_config(prefill=2, kv_mib=64)
    emulation = msgspec.structs.replace(config.pool[0].emulation, num_layers=400, prefill_tokens_per_s=1e9)
    pools = tuple(msgspec.structs.replace(pool, emulation=emulation) for pool in config.pool)
    scenario = a_scenario(msgspec.structs.replace(config, pool=pools))
    alone = simulate(scenario, [a_request(0.0, 512, 1 + 1)]).handoffs
    apart_s = 5 * MESSAGE_S
    both = simulate(scenario, [a_request(0.0, 512, 2), a_request(apart_s, 512, 2, 7)]).handoffs
    latency_s = scenario.hardware["decode"].port().latency_s
    assert max(both)[0] + apart_s - latency_s == pytest.approx(2 * (alone[0][0] - latency_s), rel=0.01)


@settings(max_examples=25, deadline=None)
@given(trace=TRACES, failures=FAILURES, kv_mib=st.sampled_from([1, 8]), device=st.sampled_from(["", "h100"]))
def test_nothing_is_lost(trace: list[TraceRequest], failures: list[Failure], kv_mib: int, device: str) -> None:
    """Whatever fails when: every request ends, the served ones whole, and nobody holds anything at the end."""
    config = a_config(2, 2, kv_mib)
    config = on_devices(config, device) if device else config
    recorder, cluster = replay(a_scenario(config, *failures), trace)
    assert [] == unrest(cluster)
    assert [] == [one for one in recorder.journeys if not one.outcome]
    served = [(one.num_tokens, one.output_tokens) for one in recorder.journeys if one.outcome == "ok"]
    assert [] == [pair for pair in served if pair[0] != pair[1]]
    assert len(served) == len(trace) or failures


@settings(max_examples=25, deadline=None)
@given(trace=TRACES, failures=FAILURES, device=st.sampled_from(["", "h100", "cs3"]), decode=st.integers(1, 2))
def test_runs_of_steps_are_single_steps(
    trace: list[TraceRequest], failures: list[Failure], device: str, decode: int
) -> None:
    """Taken as one or each by itself, steps give clients the same at the same time, and workers the same counts."""
    config = a_config(2, decode, 1, max_running=6)
    config = on_devices(config, device) if device else config
    known = [failure for failure in failures if decode == 2 or failure.worker != "decode-1"]
    runs, steps = (simulate(a_scenario(config, *known, max_run=size), trace) for size in (1 << 30, 1))
    assert seen(steps) == seen(runs)
    assert counted(steps) == counted(runs)
    assert sorted(steps.fetches.items()) == sorted(runs.fetches.items())
    assert steps.gaps.number == runs.gaps.number
    assert steps.gaps.mean == pytest.approx(runs.gaps.mean)


def test_aggregated_workers_alone() -> None:
    """Without a prefill worker all is computed where it is decoded."""
    recorder, cluster = replay(a_scenario(a_config(prefill=0)), [a_request(0.1 * n, 200, 9) for n in range(9)])
    assert ({"ok"}, {False}) == tuple(
        {getattr(one, name) for one in recorder.journeys} for name in ("outcome", "disaggregated")
    )
    assert [] == unrest(cluster)


def test_the_same_seed_gives_the_same() -> None:
    """Every number of it."""
    trace = [a_request(0.03 * number, 50 + 37 * number % 300, 1 + number % 40, number % 3) for number in range(60)]
    config, failure = a_config(2, 2), Failure("decode-0", 0.6, 1.0, False)
    first, second = (simulate(a_scenario(config, failure, seed=7), trace) for _ in range(2))
    assert [msgspec.to_builtins(one) for one in first.journeys] == [msgspec.to_builtins(one) for one in second.journeys]
    assert first.handoffs == second.handoffs
    assert [(one.busy.sums, one.held.sums) for one in first.workers.values()] == [
        (one.busy.sums, one.held.sums) for one in second.workers.values()
    ]


def test_a_dead_worker_is_replaced() -> None:
    """What it had under way is served by the other one, and whole."""
    trace = [a_request(0.001 * number, 100, 60, number) for number in range(6)]
    healthy = simulate(a_scenario(a_config(1, 2)), trace)
    recorder, cluster = replay(a_scenario(a_config(1, 2), Failure("decode-0", 0.9, None, False)), trace)
    assert {("ok", 60)} == {(one.outcome, one.num_tokens) for one in recorder.journeys}
    assert 0 < sum(one.recoveries for one in recorder.journeys) <= 3
    assert counted(healthy)["decode-1"][3] < counted(recorder)["decode-1"][3]
    assert [] == unrest(cluster)


def test_a_worker_comes_back() -> None:
    """Its next incarnation begins empty, and serves."""
    trace = [a_request(0.0, 200, 5, 1), a_request(6.0, 200, 5, 1)]
    recorder, cluster = replay(a_scenario(a_config(), Failure("decode-0", 2.0, 1.0, False)), trace)
    assert ["ok", "ok"] == [one.outcome for one in recorder.journeys]
    assert [0, 0] == [one.cached_tokens for one in recorder.journeys]
    assert "0000000300000000" == cluster.incarnations[-1].life.identity.epoch  # the third start of all


def test_failures_may_overlap() -> None:
    """It is back when the last of them is over, once."""
    trace = [a_request(float(number), 200, 5, number) for number in range(8)]
    failures = [Failure("decode-0", 1.5, 3.0, False), Failure("decode-0", 2.5, 1.0, False)]
    recorder, cluster = replay(a_scenario(a_config(), *failures), trace)
    assert {"ok"} == {one.outcome for one in recorder.journeys}
    assert "0000000300000000" == cluster.incarnations[-1].life.identity.epoch  # the third start of all
    assert [] == [one for one in recorder.journeys if one.first_token is not None and 1.6 < one.first_token < 4.5]


def test_a_cut_link_is_avoided() -> None:
    """A prefill worker that nobody reaches is not waited for twice."""
    trace = [a_request(0.2 * number, 300, 5, number) for number in range(10)]
    recorder, cluster = replay(a_scenario(a_config(1, 1), Failure("prefill-0", 0.5, 30.0, True)), trace)
    assert {"ok"} == {one.outcome for one in recorder.journeys}
    assert {True, False} == {one.disaggregated for one in recorder.journeys}
    assert recorder.replans["unreachable"] > 0
    assert [] == unrest(cluster)


def test_failures_of_nobody() -> None:
    """A worker that is not there cannot fail."""
    with pytest.raises(ConfigError, match="decode-7"):
        simulate(a_scenario(a_config(), Failure("decode-7", 0.5, None, False)), [a_request(0.0, 10, 1)])


def test_requests_of_one_moment_go_to_different_workers() -> None:
    """Those that come before the first one's grant see that its prompt is on its way to a prefill worker."""
    recorder = simulate(a_scenario(a_config(4, 2)), [a_request(0.0, 300, 2, number) for number in range(8)])
    assert [600] * 4 == [one.prefill_tokens for name, one in recorder.workers.items() if name.startswith("prefill")]


def test_what_is_decided_need_not_go_on() -> None:
    """It is asked with each request, and what was recorded until then is there."""
    asked: list[float] = []

    def enough(recorder: Recorder, now: float) -> bool:
        asked.append(now)
        return len(recorder.journeys) == 2

    recorder = simulate(a_scenario(a_config()), [a_request(float(n), 10, 3, n) for n in range(5)], enough=enough)
    assert ([0.0, 1.0, 2.0], ["ok", "ok"]) == (asked, [journey.outcome for journey in recorder.journeys])
