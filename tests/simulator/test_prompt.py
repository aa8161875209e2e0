"""Prompts as stretches behave like tuples of tokens, as far as anybody looks."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import MODEL, POOL
from twinfer.engine.assemble import emulated_capabilities
from twinfer.simulator.prompt import SpanHasher, SpanPrompt

CAPABILITIES = emulated_capabilities(MODEL, POOL)
PROMPTS = st.builds(
    lambda stretches, size, cut: SpanPrompt(tuple(stretches), size, 0, max(1, len(stretches) * size - cut)),
    st.lists(st.integers(0, 9), min_size=1, max_size=8),
    st.integers(1, 9),
    st.integers(0, 8),
)


def a_hasher(block_tokens: int = 4) -> SpanHasher:
    """Names blocks of a model."""
    return SpanHasher(b"key", CAPABILITIES.fingerprint, CAPABILITIES.provenance, block_tokens)


@given(PROMPTS, st.integers(-12, 80), st.integers(-12, 80))
def test_like_a_tuple(prompt: SpanPrompt, start: int, end: int) -> None:
    """Length, elements and slices are those of the tokens written out."""
    written = tuple(prompt)
    assert (len(written), written[0], written[-1]) == (len(prompt), prompt[0], prompt[-1])
    assert written[start:end] == tuple(prompt[start:end])


@given(PROMPTS, PROMPTS, st.integers(1, 6))
def test_hashes_tell_contents_apart(one: SpanPrompt, other: SpanPrompt, block_tokens: int) -> None:
    """Blocks cut alike from prompts cut alike have one name exactly when they hold the same, up to their ends."""
    other = msgspec.structs.replace(other, stretch_tokens=one.stretch_tokens, stop=len(other.stretches))
    other = msgspec.structs.replace(other, stop=len(other.stretches) * one.stretch_tokens)
    hasher, names = a_hasher(block_tokens), []
    for prompt in (one, other):
        parent = chain = b"root"
        for start in range(0, len(prompt) - block_tokens + 1, block_tokens):
            parent = hasher.extend(parent, prompt[start : start + block_tokens])  # type: ignore[arg-type]
            chain += parent
        names.append(chain)
    whole = min(len(one), len(other)) // block_tokens
    same = 0
    while same < whole and tuple(one[: (same + 1) * block_tokens]) == tuple(other[: (same + 1) * block_tokens]):
        same += 1
    alike = 0
    while alike < whole and names[0][: 4 + 16 * (alike + 1)] == names[1][: 4 + 16 * (alike + 1)]:
        alike += 1
    assert same == alike


def test_written_tokens_keep_their_names() -> None:
    """Blocks that hold output are hashed as ever, and another provenance has other names."""
    hasher = a_hasher()
    assert hasher.extend(b"p", (1, 2, 3, 4)) == super(SpanHasher, hasher).extend(b"p", (1, 2, 3, 4))
    assert isinstance(hasher.after("other"), SpanHasher)
