"""The order in which workers make way for others with new weights, and the way back.

1. *Beside* the old ones, the default: first one new worker of each phase starts, then old ones leave and new ones start
   in turn, and the last old worker of each phase leaves at the very end, prefill before decode. So there never are
   fewer workers of a phase than before; and as long as old weights are served, and from the start on new ones, each
   have workers of both phases that can pass KV to each other. It takes room for one more worker of each phase.
2. *In place*, where there is no such room: a worker leaves, and then its successor starts. There is one worker fewer
   meanwhile, and while only one kind of weights has a prefill worker, decode workers of the other compute prompts
   themselves. An only decode worker cannot be replaced like this: for a time nobody would answer.
3. When something does not come up, what was done is undone, last things first: so workers of the old weights are there
   again before those of the new ones leave, as on the way forth. But a worker that had changed its role begins again
   with that of its pool, so in place the ways back are looked at, too, before anybody goes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol, TypeAlias

from twinfer.cluster.turnover import Change
from twinfer.core.errors import ConfigError, TwinferError
from twinfer.core.ids import WorkerId
from twinfer.core.process import WorkerSpec


@dataclass(frozen=True, slots=True)
class Start:
    """Start these together; they serve afterwards."""

    specs: tuple[WorkerSpec, ...]


@dataclass(frozen=True, slots=True)
class Retire:
    """Let this one end what it has, and go."""

    spec: WorkerSpec


Step: TypeAlias = Start | Retire


class Crew(Protocol):
    """Whoever starts and retires workers."""

    async def start(self, specs: Sequence[WorkerSpec], within_s: float) -> None:
        """Return when these serve; where they cannot, they have that time to end what they were sent meanwhile.

        Raises:
            TwinferError: they do not, and are gone again.
        """
        ...

    async def retire(self, spec: WorkerSpec, within_s: float) -> None:
        """Return when it has gone, that time after it was told to at the latest."""
        ...

    def fallen(self) -> str | None:
        """Which worker died since it was started, in words."""
        ...


class RollFailed(TwinferError):
    """The weights were not changed; the message says why, and what serves now."""


def schedule(changes: Sequence[Change], *, in_place: bool) -> list[Step]:
    """What to do, one step after the other; nothing where all stay.

    Args:
        changes: of all workers of a model.
        in_place: old ones go before new ones come.

    Raises:
        ConfigError: in place, and at some time nobody would decode, be it on the way back.
    """
    sources = [change for change in changes if not change.role.decodes]
    sinks = sorted((change for change in changes if change.role.decodes), key=lambda change: not change.home.decodes)
    if not in_place:
        return _beside(_Phase.of(sources), _Phase.of(sinks))
    steps = [step for change in _empty_first([*sources, *sinks]) for step in _one_by_one(change.leaver, change.comer)]
    _check_answered(steps, [change.old for change in sinks if change.old is not None])
    return steps


@dataclass(frozen=True, slots=True)
class _Phase:
    """Who of a phase leaves at once, who comes, and who leaves for whom."""

    spare: list[WorkerSpec]
    leave: list[WorkerSpec]
    come: list[WorkerSpec]

    @classmethod
    def of(cls, changes: Sequence[Change]) -> "_Phase":
        """Who is too many goes first, but one old worker stays for the end; empty places are filled first."""
        leave = [old for change in _surplus_first(changes) if (old := change.leaver) is not None]
        come = [new for change in _empty_first(changes) if (new := change.comer) is not None]
        spare = max(0, len(leave) - max(len(come), 1))
        return cls(leave[:spare], leave[spare:], come)

    def turns(self) -> list[list[Step]]:
        """One old worker leaves, the next new one starts: all but the first start and the last leave."""
        pairs = zip_longest(self.leave[:-1], self.come[1:])
        return [_one_by_one(old, new) for old, new in pairs]


def _beside(sources: _Phase, sinks: _Phase) -> list[Step]:
    spare = [Retire(old) for phase in (sources, sinks) for old in phase.spare]
    came = tuple(phase.come[0] for phase in (sinks, sources) if phase.come)
    last = [Retire(phase.leave[-1]) for phase in (sources, sinks) if phase.leave]
    return [*spare, *([Start(came)] if came else []), *_evenly(sources.turns(), sinks.turns()), *last]


def _evenly(ours: Sequence[list[Step]], theirs: Sequence[list[Step]]) -> list[Step]:
    """Two phases' turns, so that both get on at the same rate."""
    turns = [((index + 1) / (len(phase) + 1), turn) for phase in (ours, theirs) for index, turn in enumerate(phase)]
    return [step for _, turn in sorted(turns, key=lambda turn: turn[0]) for step in turn]


def _one_by_one(old: WorkerSpec | None, new: WorkerSpec | None) -> list[Step]:
    leaving = [] if old is None else [Retire(old)]
    coming = [] if new is None else [Start((new,))]
    return [*leaving, *coming]


def _empty_first(changes: Sequence[Change]) -> list[Change]:
    return sorted(changes, key=lambda change: change.old is not None)


def _surplus_first(changes: Sequence[Change]) -> list[Change]:
    return sorted(changes, key=lambda change: change.new is not None)


def _way_back(done: Sequence[Step]) -> list[Step]:
    """What undoes these."""
    return [
        back
        for step in reversed(done)
        for back in (map(Retire, step.specs) if isinstance(step, Start) else [Start((step.spec,))])
    ]


def _check_answered(steps: Sequence[Step], sinks: Sequence[WorkerSpec]) -> None:
    """See that somebody decodes after each step, and on the way back from wherever something may not come up."""
    now = {spec.worker for spec in sinks}
    ways_back = [[*steps[:end], *_way_back(steps[:end])] for end in range(len(steps) if now else 0)]
    if all(_is_answered(way, now) for way in (steps, *ways_back)):
        return
    turned = [spec.worker for spec in sinks if not spec.pool.role.decodes]
    who = f" ({' and '.join(turned)}, decoding for now, would prefill when started again)" if turned else ""
    raise ConfigError(
        f"in place nobody could answer while the only worker that decodes loads{who}: leave out --in-place, or have "
        "two workers in pools that decode"
    )


def _is_answered(steps: Sequence[Step], sinks: Iterable[WorkerId]) -> bool:
    """Whether the last one that decodes never goes."""
    decoding = set(sinks)
    for step in steps:
        if isinstance(step, Start):
            decoding |= {spec.worker for spec in step.specs if spec.pool.role.decodes}
        elif decoding == {step.spec.worker}:
            return False
        else:
            decoding.discard(step.spec.worker)
    return True


async def carry_out(crew: Crew, steps: Sequence[Step], within_s: float, say: Callable[[str], None]) -> None:
    """Do all of it, or undo what was done.

    Args:
        within_s: that a worker has to end what it has.
        say: told what is done next.

    Raises:
        RollFailed: something did not come up.
    """
    done: list[Step] = []
    for index, step in enumerate(steps):
        try:
            if (fallen := crew.fallen()) is not None:
                raise RollFailed(fallen)
            if isinstance(step, Retire):
                done.append(step)  # a worker that is told to go does not stay, whatever becomes of it
            say(f"[{index + 1}/{len(steps)}] {_in_words(step, within_s)}")
            await _do(crew, step, within_s)
            if isinstance(step, Start):
                done.append(step)
        except TwinferError as error:
            say(f"{error}; going back")
            await _undo(crew, done, within_s, say, error)
            raise RollFailed(f"the weights were not changed: {error}") from error


async def _undo(
    crew: Crew, done: Sequence[Step], within_s: float, say: Callable[[str], None], reason: TwinferError
) -> None:
    for step in _way_back(done):
        say(f"back: {_in_words(step, within_s)}")
        try:
            await _do(crew, step, within_s)
        except TwinferError as error:
            raise RollFailed(
                f"the weights were changed in part ({reason}), and that cannot be undone ({error}): one or both are "
                "served; see that their checkpoints can be read, and roll again, to either of them"
            ) from error


async def _do(crew: Crew, step: Step, within_s: float) -> None:
    if isinstance(step, Start):
        await crew.start(step.specs, within_s)
    else:
        await crew.retire(step.spec, within_s)


def _in_words(step: Step, within_s: float) -> str:
    if isinstance(step, Start):
        return f"starting {' and '.join(spec.worker for spec in step.specs)} with {step.specs[0].model.source}"
    return f"{step.spec.worker} takes nothing new and ends what it has, within {within_s:g} s"
