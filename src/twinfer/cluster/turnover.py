"""Which workers make way for which, so that each place of a model's pools has one that is as it is to be. Pure.

A place is what one worker was planned for at the start: a pool, and cores. After a roll that was undone in part some
places may be empty, some have two workers, and some have one already that is as it is to be.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeAlias

import msgspec

from twinfer.core.capabilities import Role
from twinfer.core.ids import WorkerId
from twinfer.core.process import WorkerSpec

Wish: TypeAlias = Callable[[WorkerSpec], WorkerSpec]
"""A worker as it is to be, whatever its name and address."""


@dataclass(frozen=True, slots=True)
class Change:
    """One worker, and the one that takes its place.

    Attributes:
        old: ``None`` where the place is empty.
        new: ``None`` where the place has another one; ``old`` itself where that stays.
        role: what ``old`` does now, or else what ``new`` will.
    """

    old: WorkerSpec | None
    new: WorkerSpec | None
    role: Role

    @property
    def home(self) -> Role:
        """What whoever begins in this place does."""
        one = self.old or self.new
        assert one is not None
        return one.pool.role

    @property
    def leaver(self) -> WorkerSpec | None:
        """Who leaves."""
        return None if self.old == self.new else self.old

    @property
    def comer(self) -> WorkerSpec | None:
        """Who comes."""
        return None if self.old == self.new else self.new


def turnover(
    places: Sequence[WorkerSpec],
    present: Sequence[WorkerSpec],
    wish: Wish,
    name: Callable[[WorkerSpec], WorkerSpec],
    roles: Mapping[WorkerId, Role],
) -> list[Change]:
    """A change for each place and each worker.

    Args:
        places: workers of the model as they were planned.
        present: those that there are now.
        name: the same worker with a name and an address that nobody has.
        roles: of those whose role is not their pool's now.
    """
    alike: dict[tuple[str, tuple[int, ...]], int] = {}
    for place in places:
        alike[_place(place)] = alike.get(_place(place), 0) + 1
    changes: list[Change] = []
    for key, number in alike.items():
        here = [spec for spec in present if _place(spec) == key]
        stay = [spec for spec in here if _is(spec, wish(spec))][:number]
        leave = [spec for spec in here if spec not in stay]
        like = next(place for place in places if _place(place) == key)
        come = [name(wish(like)) for _ in range(number - len(stay))]
        changes += _paired(stay, stay, roles)
        changes += _paired(leave, come, roles)
    return changes


def _place(spec: WorkerSpec) -> tuple[str, tuple[int, ...]]:
    return spec.pool.name, spec.cores


def _is(spec: WorkerSpec, wished: WorkerSpec) -> bool:
    return spec == msgspec.structs.replace(wished, worker=spec.worker, listen=spec.listen)


def _paired(olds: Sequence[WorkerSpec], news: Sequence[WorkerSpec], roles: Mapping[WorkerId, Role]) -> Iterator[Change]:
    for old, new in zip_longest(olds, news):
        one = old or new
        assert one is not None
        yield Change(old, new, roles.get(one.worker, one.pool.role))
