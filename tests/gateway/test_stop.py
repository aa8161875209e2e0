from hypothesis import given
from hypothesis import strategies as st

from twinfer.gateway.text.stop import StopFinder, StopSet

TEXT = st.text(alphabet="abc", max_size=30)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), max_size=4)


def expected(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition: read on until the text ends in a stop string, and take the longest such."""
    for end in range(1, len(text) + 1):
        hits = [stop for stop in stops if text[:end].endswith(stop)]
        if hits:
            longest = max(hits, key=len)
            return text[: end - len(longest)], longest
    return text, None


def could_become_a_stop(shown: str, text: str, stops: list[str]) -> bool:
    """Whether something shown so far might belong to a stop string that is not complete."""
    ends = [text[start:] for start in range(len(text))]
    return any(stop.startswith(end) and len(text) - len(end) < len(shown) for end in ends for stop in stops)


@given(STOPS, st.lists(TEXT, max_size=8))
def test_text_ends_at_the_first_stop_string_however_it_is_cut(stops: list[str], parts: list[str]) -> None:
    """Shown text and match depend on the text alone, not on where the parts are cut."""
    finder = StopFinder(StopSet(stops))
    shown = "".join(map(finder.feed, parts)) + finder.finish()
    assert expected("".join(parts), stops) == (shown, finder.matched)


@given(STOPS, st.lists(TEXT, max_size=8))
def test_nothing_is_shown_that_may_belong_to_a_stop_string(stops: list[str], parts: list[str]) -> None:
    """At any moment what is shown stays out of every stop string that may still come; nothing else is held back."""
    finder, shown, text = StopFinder(StopSet(stops)), "", ""
    for part in parts:
        text += part
        shown += finder.feed(part)
        if finder.matched is not None:
            break
        assert not could_become_a_stop(shown, text, stops)
        held = text[len(shown) :]
        assert not held or any(stop.startswith(held) for stop in stops)


def test_text_after_a_stop_string_is_never_shown() -> None:
    """After the match everything is swallowed, the end included."""
    finder = StopFinder(StopSet(["END"]))
    assert [finder.feed("aE"), finder.feed("NDb"), finder.feed("more"), finder.finish()] == ["a", "", "", ""]
    assert finder.matched == "END"


def test_held_text_is_shown_when_no_stop_string_came() -> None:
    """A beginning that came to nothing is ordinary text."""
    finder = StopFinder(StopSet(["END"]))
    assert [finder.feed("aEN"), finder.finish()] == ["a", "EN"]


def test_many_long_stop_strings_cost_no_more_than_their_text() -> None:
    """Thousands of stop strings are one automaton; reading is one step per character."""
    finder = StopFinder(StopSet([f"stop-{number}!" for number in range(2500)]))
    assert finder.feed("text stop-2499") + finder.feed("!") + finder.finish() == "text "
    assert finder.matched == "stop-2499!"
