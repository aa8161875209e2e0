import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.driver import make_request
from twinfer.core.request import Sampling, Stopping
from twinfer.core.step import Slice
from twinfer.grammar.masks import Masks
from twinfer.model.adjust import PromptIds, adjust_, forbid_, is_adjusted

pytestmark = pytest.mark.torch

VOCAB = 12
TOKENS = st.integers(0, VOCAB - 1)
SAMPLINGS = st.builds(
    Sampling,
    repetition_penalty=st.sampled_from([1.0, 1.5, 0.5]),
    presence_penalty=st.sampled_from([0.0, 0.7, -0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.3]),
    logit_bias=st.dictionaries(st.integers(-1, VOCAB), st.sampled_from([-100.0, 2.0]), max_size=3),
)


def drawing(name: str, sampling: Sampling, prompt: list[int], emitted: list[int], stopping: Stopping) -> Slice:
    """A slice that draws the next token."""
    return Slice(make_request(name, prompt, sampling, stopping=stopping), [0], 0, [0], len(emitted), emitted)


PARTS = st.lists(
    st.builds(
        drawing,
        st.uuids().map(str),
        SAMPLINGS,
        st.lists(TOKENS, min_size=1, max_size=8),
        st.lists(TOKENS, max_size=8),
        st.builds(Stopping, st.just(99), st.integers(0, 6), st.lists(st.integers(0, VOCAB)).map(tuple)),
    ),
    min_size=1,
    max_size=5,
)


def naive(logits: np.ndarray, part: Slice) -> np.ndarray:
    """The definitions, token by token."""
    sampling, stopping, result = part.request.sampling, part.request.stopping, logits.copy()
    for token in range(VOCAB):
        if token in part.request.prompt or token in part.emitted:
            by = sampling.repetition_penalty
            result[token] = result[token] / by if result[token] > 0 else result[token] * by
        count = list(part.emitted).count(token)
        result[token] -= sampling.presence_penalty * (count > 0) + sampling.frequency_penalty * count
        result[token] += sampling.logit_bias.get(token, 0.0)
        if token in stopping.stop_token_ids and len(part.emitted) < stopping.min_tokens:
            result[token] = -np.inf
    return result


@settings(deadline=None)
@given(PARTS, st.integers(0, 2**32))
def test_definitions(parts: list[Slice], seed: int) -> None:
    """A whole batch is changed as the definitions change each row; a row that nothing concerns is left alone."""
    logits = torch.randn(len(parts), VOCAB, generator=torch.Generator().manual_seed(seed))
    expected = np.stack([naive(row, part) for row, part in zip(logits.numpy(), parts, strict=True)])
    changed = logits.clone()
    adjust_(changed, parts, PromptIds().update(parts))
    np.testing.assert_allclose(changed.numpy(), expected, rtol=1e-5, atol=1e-5)
    for part, before, after in zip(parts, logits, changed, strict=True):
        assert is_adjusted(part) or torch.equal(before, after)


def test_prompts_are_kept_while_they_draw() -> None:
    """A prompt is looked through once, and forgotten when its request no longer draws."""
    prompts = PromptIds()
    part = drawing("a", Sampling(repetition_penalty=2.0), [3, 1, 3], [], Stopping(9))
    (first,) = prompts.update([part])
    assert first is not None
    assert first.tolist() == [1, 3]
    assert first is prompts.update([part])[0]
    assert prompts.update([drawing("b", Sampling(), [2], [], Stopping(9))]) == [None]
    assert first is not prompts.update([part])[0]


@pytest.mark.parametrize("vocab_size", [5, 16, 77, 4096])
def test_forbidden_tokens_are_impossible_with_and_without_the_kernel(vocab_size: int) -> None:
    """In the rows of the masks and nowhere else; what is permitted stays as it was."""
    generator = torch.Generator().manual_seed(vocab_size)
    logits = torch.randn((5, vocab_size), generator=generator)
    permits = torch.rand((2, vocab_size), generator=generator) < 0.5
    masks = Masks((1, 4), np.packbits(permits.numpy(), axis=1, bitorder="little").tobytes())
    expected = logits.clone()
    expected[[1, 4]] = torch.where(permits, expected[[1, 4]], -torch.inf)
    contiguous, strided = logits.clone(), torch.zeros((5, 2 * vocab_size))[:, ::2].copy_(logits)
    for each in (contiguous, strided):
        forbid_(each, masks)
        assert torch.equal(expected, each)
