"""The load of the benchmark of chats and long prompts, and what is said of it."""

import itertools

import pytest
from bench.mixed_load import Load, Seen, seen, verdicts

from twinfer.loadtest.record import ErrorKind, Record

LOAD = Load(rate=2.0, chat="60..200", chat_answer=60, every=25.0, long=4096, long_answer=20, seconds=300.0)


def test_the_same_seed_asks_the_same() -> None:
    """So that all systems of a round have the same to do, and other rounds something else."""
    assert LOAD.sessions(3) == LOAD.sessions(3)
    assert LOAD.sessions(3) != LOAD.sessions(4)


def test_chats_are_at_random_and_long_prompts_rare_and_apart() -> None:
    """In order, as many of either as they should be, and each with its own lengths."""
    sessions = LOAD.sessions(3)
    moments = [session.trace_s or 0.0 for session in sessions]
    assert sorted(moments) == moments
    assert list(range(len(sessions))) == [session.number for session in sessions]
    chats = [session for session in sessions if LOAD.kind(session) == "chat"]
    longs = [moment for session, moment in zip(sessions, moments, strict=True) if LOAD.kind(session) == "long"]
    assert 600 == pytest.approx(len(chats), rel=0.15)
    assert {60} == {session.turns[0].max_tokens for session in chats}
    assert all(20.0 <= late - early <= 30.0 for early, late in itertools.pairwise(longs))
    assert 12 == pytest.approx(len(longs), abs=2)


def test_what_clients_saw() -> None:
    """Percentiles of whole answers alone, gaps of all of them together, and the ways they went."""
    records = [
        Record(0, 0, 0.0, 0.0, arrivals_us=[500_000, 600_000, 900_000], route="aggregated"),
        Record(1, 0, 1.0, 1.0, arrivals_us=[200_000, 300_000], route="disaggregated"),
        Record(2, 0, 2.0, 2.0, arrivals_us=[9_000_000], error=ErrorKind.BROKEN),
    ]
    found = seen(records)
    assert (2, 1, {"aggregated": 1, "disaggregated": 1}) == (found.requests, found.failed, found.routes)
    assert [0.2, 0.5, 0.5] == pytest.approx([found.ttft_p50, found.ttft_p99, found.ttft_max])
    assert [0.1, 0.3, 0.3] == pytest.approx([found.itl_p50, found.itl_p99, found.itl_max])


def test_the_router_is_held_to_the_better_fixed_way() -> None:
    """Of each time by itself; kinds that nobody asked say nothing."""
    nothing = seen([])

    def of(ttft_p99: float, itl_p99: float) -> dict[str, Seen]:
        chat = Seen(1, 0, 0.0, ttft_p99, 0.0, 0.0, itl_p99, 0.0, {})
        return {"chat": chat, "long": nothing, "all": chat}

    found = {"aggregated": of(2.0, 0.8), "disaggregated": of(4.0, 0.2), "router": of(1.0, 0.22)}
    assert verdicts(found) == [
        "router, chat: to the better fixed way p99 TTFT -50%, p99 ITL +10%",
        "router, long: to the better fixed way p99 TTFT -, p99 ITL -",
        "router, all: to the better fixed way p99 TTFT -50%, p99 ITL +10%",
    ]
