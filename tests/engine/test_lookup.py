"""Drafts from what was said before: what they are, how they adapt, and that they only ever save steps."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import EMULATION, POOL, SmallEngine, a_request, expected_output
from twinfer.engine.lookup import FIRST_LENGTH, GRAM, MAX_LENGTH, MAX_SILENCE, PromptLookup


def test_what_followed_the_same_words_is_drafted() -> None:
    """After the last time that they came, in the prompt or in the answer."""
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 7, 8, 1, 2])
    assert lookup.draft([3], 99) == [4, 5, 6]
    assert lookup.draft([3, 9, 2, 3], 99) == []
    assert PromptLookup([1, 2]).draft([3, 9, 2, 3, 9, 2, 3], 99) == [9, 2, 3]


def test_no_more_than_there_is_room_for() -> None:
    """However long what followed is."""
    assert PromptLookup([1, 2, 3, 4, 5, 1, 2]).draft([3], 1) == [4]


def test_right_drafts_make_longer_ones() -> None:
    """Up to a limit."""
    lookup, said = PromptLookup([]), list(range(40))
    lookup.draft(said, 99)
    output, lengths = [*said, 0, 1, 2], []
    for _ in range(4):
        draft = lookup.draft(output, 99)
        lengths.append(len(draft))
        output += [*draft, draft[-1] + 1]
    assert lengths == [FIRST_LENGTH, 2 * FIRST_LENGTH, MAX_LENGTH, MAX_LENGTH]


def test_wrong_drafts_make_shorter_and_rarer_ones() -> None:
    """In a text whose words come again and again with something else after them."""
    lookup, output, drafts = PromptLookup([]), list[int](), list[tuple[int, int]]()
    for number in itertools.count(10):
        for token in (1, 2, 3, number):
            if draft := lookup.draft(output, 99):
                drafts.append((len(output), len(draft)))
            output.append(token)
        if len(output) > 2000:
            break
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(drafts)]
    assert {1} == {length for _, length in drafts[2:]}
    assert gaps[-1] >= MAX_SILENCE
    assert len(drafts) < len(output) / 40


@given(tokens=st.lists(st.integers(0, 2), max_size=60), cut=st.integers(0, 60), room=st.integers(1, 9))
def test_a_draft_is_always_a_piece_of_what_was_said(tokens: list[int], cut: int, room: int) -> None:
    """Preceded there by the same words."""
    draft = PromptLookup(tokens[:cut]).draft(tokens[cut:], room)
    spots = [i for i in range(GRAM, len(tokens)) if tokens[i - GRAM : i] == tokens[-GRAM:]]
    assert draft == (tokens[spots[-1] : spots[-1] + min(room, FIRST_LENGTH)] if spots else [])


@pytest.mark.parametrize("prompt", [[0, 1] * 10, [1], [0, 0, 1, 0, 1, 1, 0] * 3])
def test_guesses_save_steps_and_change_nothing(prompt: list[int]) -> None:
    """With two words to say, what comes next has often come before."""
    emulation = msgspec.structs.replace(EMULATION, vocab_size=2)
    pool = msgspec.structs.replace(POOL, emulation=emulation, speculation="lookup")
    engine = SmallEngine(64, pool)
    engine.engine.submit(a_request(prompt, 80))
    assert {"r": expected_output(prompt, 80, emulation)} == engine.run()
    counters = engine.engine.load().counters
    assert 0 < counters.right_guesses < counters.guessed_tokens
    assert counters.steps == 80 - counters.right_guesses
    assert counters.decode_tokens == 79
