import json
from collections.abc import Sequence

import numpy as np
import pytest

from tests.fakes import a_request
from twinfer.core.request import GenerationRequest, Grammar
from twinfer.core.step import Slice
from twinfer.grammar.masks import NO_MASKS, GrammarMasks, Masks
from twinfer.grammar.token_table import TokenTable
from twinfer.grammar.vocabulary import Vocabulary

END, NEVER = 0, 1
TOKENS = ("<|end|>", "<|other|>", *map(chr, range(32, 127)), '{"', '":', '"}', "true", "false")
VOCABULARY = Vocabulary(TokenTable(tuple(token.encode() for token in TOKENS), (END, NEVER)))
LETTERS = '%llguidance {"no_forcing": true}\nstart: "a" "b"+ "c"?\n'
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
OBJECT = f'%llguidance {{"no_forcing": true}}\nstart: %json {json.dumps(SCHEMA)}\n'


def ids(text: str) -> list[int]:
    """Character by character."""
    return [TOKENS.index(character) for character in text]


def request(source: str | None = LETTERS, name: str = "r", ends: tuple[int, ...] = (END,)) -> GenerationRequest:
    """A request held to a grammar."""
    free = a_request((5,), request_id=name)
    if source is None:
        return free
    return GenerationRequest(
        free.request_id, free.model, free.tenant, free.prompt, free.stopping, grammar=Grammar(source, ends)
    )


def part(asked: GenerationRequest, emitted: Sequence[int], *, is_guess: bool = False) -> Slice:
    """A slice that draws what comes after these tokens."""
    return Slice(asked, (5,), 0, (0,), len(emitted), emitted, is_guess)


def set_bits(bits: bytes) -> list[int]:
    """Which are set."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")).tolist()


def permitted(masks: Masks) -> list[set[str]]:
    """What each row may draw."""
    rows = [set_bits(bits) for bits in masks.row_bits()]
    return [{TOKENS[token_id] for token_id in row} for row in rows]


def after(text: str, source: str = LETTERS) -> set[str]:
    """What may be drawn after a text."""
    [row] = permitted(GrammarMasks(VOCABULARY).compute([part(request(source), ids(text))]))
    return row


def test_what_the_grammar_says_and_its_end() -> None:
    """An end is permitted where the text is complete, and only there; tokens of several characters where they fit."""
    assert [{"a"}, {"b"}, {"b", "c", "<|end|>"}, {"<|end|>"}] == [after(text) for text in ("", "a", "ab", "abbc")]
    assert {"{", '{"'} == after("", OBJECT)
    assert {" ", "t", "f", "true", "false"} == after('{"ok":', OBJECT)


def test_only_rows_with_a_grammar_have_masks() -> None:
    """Others are left as they are."""
    masks = GrammarMasks(VOCABULARY)
    assert NO_MASKS is masks.compute([part(request(None), [])])
    found = masks.compute([part(request(None, "x"), []), part(request(), ids("a")), part(request(None, "y"), [])])
    assert ((1,), [{"b"}], ()) == (found.rows, permitted(found), found.failed)


def test_prompts_under_way_are_no_rows() -> None:
    """Rows are counted among what draws."""
    asked = request()
    prompt = Slice(request(name="other"), (5,), 0, (0,), None, ())
    assert (0,) == GrammarMasks(VOCABULARY).compute([prompt, part(asked, ids("a"))]).rows


def test_a_sequence_goes_on_step_by_step_as_if_it_were_replayed() -> None:
    """With the same live list, and after it was away for a step."""
    masks, emitted, asked = GrammarMasks(VOCABULARY), list[int](), request(OBJECT)
    for token_id in ids('{"ok":true}'):
        [row] = permitted(masks.compute([part(asked, emitted)]))
        assert row == after("".join(TOKENS[known] for known in emitted), OBJECT)
        emitted.append(token_id)
        if len(emitted) == 5:
            masks.compute([part(request(None, "another"), [])])
    assert [{"<|end|>"}] == permitted(masks.compute([part(asked, emitted)]))


def test_another_past_of_the_same_request_starts_anew() -> None:
    """A worker may be asked once more, with what was emitted elsewhere."""
    masks, asked = GrammarMasks(VOCABULARY), request(OBJECT)
    masks.compute([part(asked, ids('{"ok":t'))])
    assert [{"a"}] == [row & {"a", "r"} for row in permitted(masks.compute([part(asked, ids('{"ok":f'))]))]


def test_guesses_are_taken_back() -> None:
    """Each has the mask of its own past; those after a forbidden token have none."""
    masks, asked, emitted = GrammarMasks(VOCABULARY), request(), ids("ab")
    guesses = [part(asked, [*emitted, *ids(guess)], is_guess=True) for guess in ("b", "bc", "bca", "c", "x")]
    found = masks.compute([part(asked, emitted), *guesses])
    assert (0, 1, 2, 4) == found.rows
    many = {"b", "c", "<|end|>"}
    assert [many, many, {"<|end|>"}, {"<|end|>"}] == permitted(found)
    assert [{"<|end|>"}] == permitted(masks.compute([part(asked, [*emitted, *ids("c")])]))


def test_what_cannot_go_on_fails_alone() -> None:
    """A past that the grammar forbids, a grammar that is none, and one that the vocabulary cannot write."""
    dead = '%llguidance {"no_forcing": true}\nstart: "é"\n'
    parts = [
        part(request(name="past"), ids("x")),
        part(request("start: (", "broken"), []),
        part(request(name="fine"), []),
        part(request(dead, "dead"), []),
    ]
    found = GrammarMasks(VOCABULARY).compute(parts)
    assert ((2,), [{"a"}]) == (found.rows, permitted(found))
    assert ["past", "broken", "dead"] == [name for name, _ in found.failed]
    assert all(reason.startswith("the answer cannot follow its grammar: ") for _, reason in found.failed)


@pytest.mark.parametrize("size", [8, 9, 15, 16, 17])
def test_any_size_of_vocabulary(size: int) -> None:
    """The bit of the end is beyond the last token's, be that in the same byte or the next."""
    tokens = (b"<|end|>", b"a", b"b", b"c", *([b""] * (size - 5)), b"d")
    source = '%llguidance {"no_forcing": true}\nstart: "a"? "d"?\n'
    masks = GrammarMasks(Vocabulary(TokenTable(tokens, (0,))))
    [bits] = masks.compute([part(request(source), [])]).row_bits()
    assert [0, 1, size - 1] == set_bits(bits)
    [bits] = masks.compute([part(request(source, "other", ()), [])]).row_bits()
    assert [1, size - 1] == set_bits(bits)
