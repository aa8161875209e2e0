"""The order in which workers make way for others with new weights, and the way back.

1. *Beside* the old ones, the default: first one new worker of each phase starts, then old ones leave and new ones start
   in turn, and the last old worker of each phase leaves at the very end, prefill before decode. So there never are
   fewer workers of a phase than before; and as long as old weights are served, and from the start on new ones, each
   have workers of both phases that can pass KV to each other. It takes room for one more worker of each phase.
2. *In place*, where there is no such room: a worker leaves, and then its successor starts. There is one worker fewer
   meanwhile, and while only one kind of weights has a prefill worker, decode workers of the other compute prompts
   themselves. An only decode worker cannot be replaced like this: for a time nobody would answer.
3. When something does not come up, what was done is undone, last things first: so workers of the old weights are there
   again before those of the new ones leave, as on the way forth.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeAlias

from twinfer.core.errors import ConfigError, TwinferError
from twinfer.core.process import WorkerSpec


@dataclass(frozen=True, slots=True)
class Change:
    """One worker, and the one that takes its place."""

    old: WorkerSpec
    new: WorkerSpec


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
    """What to do, one step after the other.

    Args:
        changes: of all workers of a model, at least one.
        in_place: old ones go before new ones come.

    Raises:
        ConfigError: in place, with a single worker that decodes.
    """
    sources = [change for change in changes if not change.old.pool.role.decodes]
    sinks = [change for change in changes if change.old.pool.role.decodes]
    if in_place:
        if len(sinks) < 2:
            raise ConfigError(
                "in place nobody could answer while the only worker that decodes loads: leave out --in-place, or have "
                "two of them"
            )
        return [step for one in (*sources, *sinks) for step in (Retire(one.old), Start((one.new,)))]
    first = Start(tuple(phase[0].new for phase in (sinks, sources) if phase))
    last = [Retire(phase[-1].old) for phase in (sources, sinks) if phase]
    return [first, *_evenly(list(_in_turn(sources)), list(_in_turn(sinks))), *last]


def _in_turn(phase: Sequence[Change]) -> Iterator[tuple[Step, Step]]:
    """One old worker leaves, the next new one starts: all but the first start and the last leave."""
    for before, now in pairwise(phase):
        yield Retire(before.old), Start((now.new,))


def _evenly(ours: Sequence[tuple[Step, Step]], theirs: Sequence[tuple[Step, Step]]) -> list[Step]:
    """Two phases' turns, so that both get on at the same rate."""
    turns = [((index + 1) / (len(phase) + 1), pair) for phase in (ours, theirs) for index, pair in enumerate(phase)]
    return [step for _, pair in sorted(turns, key=lambda turn: turn[0]) for step in pair]


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
    for step in reversed(done):
        back = [Retire(spec) for spec in step.specs] if isinstance(step, Start) else [Start((step.spec,))]
        for one in back:
            say(f"back: {_in_words(one, within_s)}")
            try:
                await _do(crew, one, within_s)
            except TwinferError as error:
                raise RollFailed(
                    f"the weights were changed in part ({reason}), and that cannot be undone ({error}): both are "
                    "served; see that their checkpoints can be read, and start the deployment again"
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
