"""What stages make of a text, however it is cut."""

from collections.abc import Sequence

from twinfer.gateway.text.content import ReasoningDelta, TextDelta
from twinfer.gateway.text.formats.base import BegunCall, BrokenCall, CallPart, Event, FoundCall, Stage


def read(stage: Stage, pieces: Sequence[str]) -> list[Event]:
    """All that a stage finds."""
    return [event for piece in pieces for event in stage.feed(piece)] + stage.finish()


def joined(events: Sequence[Event]) -> list[Event]:
    """Neighbours of one kind as one, what broke as the text that it becomes, and nothing told in advance."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, BegunCall | CallPart):
            continue
        if isinstance(event, BrokenCall):
            event = TextDelta(event.text)
        last = found[-1] if found else None
        if isinstance(event, FoundCall) or type(last) is not type(event):
            found.append(event)
        elif isinstance(last, TextDelta | ReasoningDelta):
            found[-1] = type(event)(last.text + event.text)
    return [event for event in found if isinstance(event, FoundCall) or event.text]


def told(events: Sequence[Event]) -> list[tuple[str, str]]:
    """Name and arguments of every call that was told in advance, as far as they were."""
    calls: list[tuple[str, str]] = []
    for event in events:
        if isinstance(event, BegunCall):
            calls.append((event.name, ""))
        elif isinstance(event, CallPart):
            name, arguments = calls[-1]
            calls[-1] = (name, arguments + event.json)
    return calls


def cut(text: str, places: Sequence[int]) -> list[str]:
    """A text in pieces; places beyond its end do not count."""
    inner = sorted({place for place in places if 0 < place < len(text)})
    return [text[a:b] for a, b in zip([0, *inner], [*inner, len(text)], strict=True)]
