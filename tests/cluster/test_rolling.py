"""The order of a roll: capacity never falls, both kinds of weights can be paired, and what fails is undone."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.cluster.rolling import Retire, RollFailed, Start, Step, carry_out, schedule
from twinfer.cluster.turnover import Change
from twinfer.core.capabilities import Role
from twinfer.core.config import HandoffConfig, LinkConfig, ModelConfig, PoolConfig
from twinfer.core.errors import ConfigError, TwinferError
from twinfer.core.ids import WorkerId
from twinfer.core.process import WorkerSpec

P, D, BOTH = Role.PREFILL, Role.DECODE, Role.BOTH
SHAPES = st.tuples(st.integers(0, 5), st.integers(1, 5), st.sampled_from([D, BOTH]))


def a_spec(role: Role, name: str, source: str) -> WorkerSpec:
    """A worker."""
    pool = PoolConfig(name=role.value, role=role)
    return WorkerSpec(WorkerId(name), ModelConfig("m", source), pool, LinkConfig(), HandoffConfig(), "unix:/s")


def changes(prefill: int, decode: int, sink: Role = D) -> list[Change]:
    """Of so many workers of each phase; new ones are named with capitals."""
    names = [(P, f"p{index}") for index in range(prefill)] + [(sink, f"d{index}") for index in range(decode)]
    return [Change(a_spec(role, name, "old"), a_spec(role, name.upper(), "new"), role) for role, name in names]


def words(steps: Sequence[Step]) -> list[str]:
    """+ for who starts, - for who goes."""
    return [
        "+" + "+".join(spec.worker for spec in step.specs) if isinstance(step, Start) else f"-{step.spec.worker}"
        for step in steps
    ]


def serving(steps: Sequence[Step], roll: Sequence[Change]) -> list[dict[str, Counter[Role]]]:
    """Workers of each role by their weights, at the beginning and after each step."""
    now = {change.old.worker: change.old for change in roll if change.old is not None}
    seen = [now]
    for step in steps:
        if isinstance(step, Start):
            assert not now.keys() & {spec.worker for spec in step.specs}
            now = now | {spec.worker: spec for spec in step.specs}
        else:
            now = {name: spec for name, spec in now.items() if name != step.spec.worker}
            assert len(now) == len(seen[-1]) - 1
        seen.append(now)
    return [
        {
            source: Counter(spec.pool.role for spec in there.values() if spec.model.source == source)
            for source in ("old", "new")
        }
        for there in seen
    ]


def test_a_pair() -> None:
    """Both new workers are there before either old one goes, and prefill goes before decode."""
    assert words(schedule(changes(1, 1), in_place=False)) == ["+D0+P0", "-p0", "-d0"]
    assert words(schedule(changes(0, 1, BOTH), in_place=False)) == ["+D0", "-d0"]


def test_phases_get_on_at_the_same_rate() -> None:
    """One more worker of each phase at most, and old and new ones in proportion."""
    expected = ["+D0+P0", "-d0", "+D1", "-p0", "+P1", "-d1", "+D2", "-d2", "+D3", "-p1", "-d3"]
    assert words(schedule(changes(2, 4), in_place=False)) == expected


@given(SHAPES)
def test_beside_never_weakens(shape: tuple[int, int, Role]) -> None:
    """At least as many workers of each role as before and one more at most; who decodes has a source of its weights."""
    roll = changes(*shape)
    seen = serving(schedule(roll, in_place=False), roll)
    before = seen[0]["old"]
    for now in seen[1:-2]:
        total = now["old"] + now["new"]
        assert all(before[role] <= total[role] <= before[role] + 1 for role in before)
        for kind in now.values():
            assert not shape[0] or (kind[P] > 0) == (kind[D] + kind[BOTH] > 0)
    assert (seen[-1]["old"].total(), seen[-1]["new"]) == (0, before)


@given(SHAPES.filter(lambda shape: shape[1] > 1))
def test_in_place_takes_no_room(shape: tuple[int, int, Role]) -> None:
    """Never more workers than before, one fewer at most, and always one that decodes."""
    roll = changes(*shape)
    seen = serving(schedule(roll, in_place=True), roll)
    for now in seen:
        total = now["old"] + now["new"]
        assert len(roll) - 1 <= total.total() <= len(roll)
        assert total[D] + total[BOTH] >= 1
    assert (seen[-1]["old"].total(), seen[-1]["new"]) == (0, seen[0]["old"])


def test_in_place_with_one_decode_worker() -> None:
    """Nobody could answer meanwhile: refused, with what to do."""
    with pytest.raises(ConfigError, match="in place nobody could answer while the only worker that decodes loads"):
        schedule(changes(2, 1), in_place=True)


class Told:
    """A crew that does as it is told, but for workers that do not start, and one that dies."""

    def __init__(self, *cannot: str, falls_after: int = 99) -> None:
        self.done: list[str] = []
        self._cannot = set(cannot)
        self._falls_after = falls_after

    async def start(self, specs: Sequence[WorkerSpec], within_s: float) -> None:
        """Unless it cannot."""
        if wrong := self._cannot & {spec.worker for spec in specs}:
            raise TwinferError(f"{sorted(wrong)[0]} is broken")
        self.done += words([Start(tuple(specs))])

    async def retire(self, spec: WorkerSpec, within_s: float) -> None:
        """At once."""
        assert within_s == 7.0
        self.done += words([Retire(spec)])

    def fallen(self) -> str | None:
        """Once so much was done."""
        return "P0 died" if len(self.done) == self._falls_after else None


async def roll(crew: Told, *, in_place: bool = False) -> list[str]:
    """Two pairs; what was said."""
    said: list[str] = []
    await carry_out(crew, schedule(changes(2, 2), in_place=in_place), 7.0, said.append)
    return said


async def test_done() -> None:
    """Every step in order, numbered for whoever waits."""
    crew = Told()
    said = await roll(crew)
    assert crew.done == ["+D0+P0", "-p0", "+P1", "-d0", "+D1", "-p1", "-d1"]
    assert said[:2] == [
        "[1/7] starting D0 and P0 with new",
        "[2/7] p0 takes nothing new and ends what it has, within 7 s",
    ]


@pytest.mark.parametrize(
    ("crew", "in_place", "expected"),
    [
        (Told("P0"), False, []),
        (Told("D1"), False, ["+D0+P0", "-p0", "+P1", "-d0", "+d0", "-P1", "+p0", "-D0", "-P0"]),
        (Told(falls_after=1), False, ["+D0+P0", "-D0", "-P0"]),
        (Told("D0"), True, ["-p0", "+P0", "-p1", "+P1", "-d0", "+d0", "-P1", "+p1", "-P0", "+p0"]),
    ],
)
async def test_undone(crew: Told, in_place: bool, expected: list[str]) -> None:
    """What does not come up, or dies at its first requests, takes all back: old ones first where there is room."""
    with pytest.raises(RollFailed, match="the weights were not changed"):
        await roll(crew, in_place=in_place)
    assert crew.done == expected


async def test_not_undone() -> None:
    """When the old weights cannot be started either, new ones go on serving, and it is said so."""
    crew = Told("D1", "d0")
    with pytest.raises(
        RollFailed, match=r"changed in part \(D1 is broken\), .* cannot be undone \(d0 is broken\): one or both are"
    ):
        await roll(crew)
    assert crew.done == ["+D0+P0", "-p0", "+P1", "-d0"]
