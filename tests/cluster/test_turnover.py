"""What a roll does depends on what there is: also on what an earlier one left."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.test_rolling import Told, a_spec, words
from twinfer.cluster.rolling import RollFailed, Start, carry_out, schedule
from twinfer.cluster.turnover import Change, turnover
from twinfer.core.capabilities import Role
from twinfer.core.errors import ConfigError
from twinfer.core.ids import WorkerId
from twinfer.core.process import WorkerSpec

P, D = Role.PREFILL, Role.DECODE
PLACES = [
    msgspec.structs.replace(a_spec(role, f"{role.value[0]}{index}", "old"), cores=(index // 2,))
    for role in (P, D)
    for index in range(3)
]
"""Three of each phase; the first two of each have the same cores."""
SOURCES = st.lists(st.sampled_from(["old", "new"]), max_size=2)
LEFT = st.tuples(*(SOURCES for _ in PLACES))
ROLES = st.fixed_dictionaries({WorkerId(f"{phase}{n}"): st.sampled_from([P, D]) for phase in "pd" for n in range(3)})


def wish(spec: WorkerSpec) -> WorkerSpec:
    """New weights."""
    return msgspec.structs.replace(spec, model=msgspec.structs.replace(spec.model, source="new"))


def changes(present: Iterable[WorkerSpec], roles: dict[WorkerId, Role] | None = None) -> list[Change]:
    """Of these; new ones are named with capitals."""
    numbers = count()

    def name(spec: WorkerSpec) -> WorkerSpec:
        return msgspec.structs.replace(spec, worker=WorkerId(f"{spec.worker[0].upper()}{next(numbers)}"))

    return turnover(PLACES, list(present), wish, name, roles or {})


def left(kinds: Iterable[list[str]]) -> list[WorkerSpec]:
    """For each place the workers that it has, by their weights."""
    found = []
    for place, sources in zip(PLACES, kinds, strict=True):
        for number, source in enumerate(sources):
            model = msgspec.structs.replace(place.model, source=source)
            name = WorkerId(place.worker + "'" * number)
            found.append(msgspec.structs.replace(place, worker=name, model=model))
    return found


def crowd(specs: Iterable[WorkerSpec]) -> Counter[tuple[Role, tuple[int, ...]]]:
    """How many are where."""
    return Counter((spec.pool.role, spec.cores) for spec in specs)


def test_all_old() -> None:
    """Each makes way for one in its place."""
    found = changes(PLACES)
    assert [(change.old, change.role) for change in found] == [(place, place.pool.role) for place in PLACES]
    assert [change.new and change.new.cores for change in found] == [place.cores for place in PLACES]


def test_an_empty_place_is_filled_first() -> None:
    """So that nobody has to leave before."""
    state = left([["new"], ["new"], ["new"], ["new"], ["old"], []])
    assert words(schedule(changes(state), in_place=False)) == ["+D1", "+D0", "-d1"]
    assert words(schedule(changes(state), in_place=True)) == ["+D1", "-d1", "+D0"]


def test_who_is_too_many_goes_first() -> None:
    """His place has a new one; but the last old one of a phase goes last."""
    state = left([["new"], ["old", "new"], ["old"], ["new"], ["new"], ["old", "new"]])
    assert words(schedule(changes(state), in_place=False)) == ["-p1", "+P0", "-p2", "-d2"]


def test_all_new() -> None:
    """Nothing to do."""
    assert schedule(changes(map(wish, PLACES)), in_place=False) == []


@given(LEFT, st.booleans())
def test_another_roll_ends_what_one_began(kinds: list[list[str]], in_place: bool) -> None:
    """Whatever it left: then each place has one new worker; meanwhile at most one of a phase is too many, none in
    place, and somebody decodes."""
    state = left(kinds)
    try:
        steps = schedule(changes(state), in_place=in_place)
    except ConfigError:
        assert (in_place, sum(spec.pool.role is D for spec in state)) == (True, 1)
        return
    now = {spec.worker: spec for spec in state}
    most, answered = crowd(PLACES) | crowd(state), any(spec.pool.role is D for spec in state)
    for step in steps:
        if isinstance(step, Start):
            now |= {spec.worker: spec for spec in step.specs}
        else:
            del now[step.spec.worker]
        too_many = crowd(now.values()) - most
        assert all(sum(too_many[key] for key in too_many if key[0] is role) <= (not in_place) for role in (P, D))
        answered = answered or any(spec.pool.role is D for spec in now.values())
        assert any(spec.pool.role is D for spec in now.values()) == answered
    assert Counter((spec.pool.name, spec.cores, spec.model.source) for spec in now.values()) == Counter(
        (place.pool.name, place.cores, "new") for place in PLACES
    )


def decoding(done: Iterable[str], roles: dict[WorkerId, Role]) -> Iterator[int]:
    """How many do after each step, given in words: who starts has the role of its pool."""
    now: set[str] = {name for name, role in roles.items() if role is D}
    for word in done:
        names = set(word[1:].split("+"))
        now = now | {name for name in names if name[0] in "dD"} if word[0] == "+" else now - names
        yield len(now)


@given(ROLES.filter(lambda roles: D in roles.values()), st.booleans(), st.integers(0, len(PLACES) - 1))
def test_roles_of_the_moment(roles: dict[WorkerId, Role], in_place: bool, failing: int) -> None:
    """Whoever decodes now, though planned for something else, does not go before somebody else does, nor on the way
    back, wherever that begins."""
    steps = schedule(changes(PLACES, roles), in_place=in_place)
    assert min(decoding(words(steps), roles)) > 0
    coming = [spec.worker for step in steps if isinstance(step, Start) for spec in step.specs]
    crew = Told(coming[failing])
    with pytest.raises(RollFailed):
        asyncio.run(carry_out(crew, steps, 7.0, lambda text: None))
    assert min(decoding(crew.done, roles), default=1) > 0


def test_roles_of_the_moment_and_the_way_back() -> None:
    """A worker that decodes for now does not when it is started again: where all would depend on it, nobody goes."""
    p0, p1, _, d0, *_ = PLACES
    present, roles = [d0, p0, p1], {p0.worker: D}
    with pytest.raises(ConfigError, match=r"loads \(p0, decoding for now, would prefill when started again\)"):
        schedule(turnover(present, present, wish, lambda spec: spec, roles), in_place=True)


def test_who_decodes_from_the_start_is_replaced_first() -> None:
    """Meanwhile one does that is too many, and goes for good."""
    p0, d0 = PLACES[0], PLACES[3]
    both = [Change(p0, None, D), Change(d0, msgspec.structs.replace(wish(d0), worker=WorkerId("D0")), D)]
    assert words(schedule(both, in_place=True)) == ["-d0", "+D0", "-p0"]


def test_only_one_decodes() -> None:
    """In place that is refused: it would go before another comes."""
    pair = [PLACES[0], PLACES[3]]
    with pytest.raises(ConfigError, match="in place nobody could answer"):
        schedule(turnover(pair, pair, wish, lambda spec: spec, {}), in_place=True)
