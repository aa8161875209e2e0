"""Prompts that look like source files: short ones, and long ones that are handed over in several chunks."""

import random
from dataclasses import dataclass

_NOUNS = ("block", "lease", "token", "route", "grant", "frame", "epoch", "chunk", "queue", "report")
_VERBS = ("read", "merge", "count", "find", "close", "split", "check", "sort", "copy", "parse")
_TYPES = ("int", "str", "bytes", "float", "list[int]", "dict[str, int]")
_BODIES = (
    "    return [{b} for {b} in {a}s if {b} > {n}]\n",
    "    total = {n}\n    for {b} in {a}s:\n        total += {b}\n    return total\n",
    "    if not {a}s:\n        raise ValueError('no {a} to {verb}')\n    return max({a}s, key=lambda {b}: {b} % {n})\n",
    "    seen = set()\n    while len(seen) < {n}:\n        seen.add({a}s.pop())\n    return sorted(seen)\n",
)
MAX_FUNCTIONS = 12
MIN_OUTPUT, MAX_OUTPUT = 16, 96


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt, and how much is asked for.

    Attributes:
        ignore_eos: the answer has ``max_tokens``, whatever the model would like.
    """

    text: str
    max_tokens: int
    ignore_eos: bool


def make_questions(number: int, seed: int) -> tuple[Question, ...]:
    """So many different prompts, from short to long in turn; the same for the same seed."""
    dice = random.Random(seed)
    return tuple(
        Question(
            text=_source_file(dice, index, 1 + index * (MAX_FUNCTIONS - 1) // max(1, number - 1)),
            max_tokens=dice.randint(MIN_OUTPUT, MAX_OUTPUT),
            ignore_eos=bool(index % 2),
        )
        for index in range(number)
    )


def _source_file(dice: random.Random, index: int, num_functions: int) -> str:
    """Ends in the middle of a function, so that there is something to go on with."""
    functions = [_function(dice) for _ in range(num_functions)]
    return f"# {dice.choice(_NOUNS)}s_{index}.py\n" + "\n\n".join(functions) + "\n\n" + _head(dice) + "    "


def _function(dice: random.Random) -> str:
    a, b = dice.sample(_NOUNS, 2)
    return _head(dice) + dice.choice(_BODIES).format(a=a, b=b, verb=dice.choice(_VERBS), n=dice.randint(2, 99))


def _head(dice: random.Random) -> str:
    verb, noun, kind = dice.choice(_VERBS), dice.choice(_NOUNS), dice.choice(_TYPES)
    return f"def {verb}_{noun}({noun}s: {kind}, limit: int = {dice.randint(1, 999)}) -> {dice.choice(_TYPES)}:\n"
