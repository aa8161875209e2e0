"""Plans of single steps: how prompts are cut up."""

from collections.abc import Iterator

import pytest

from tests.fakes import MODEL, POOL, a_request
from twinfer.core.block_hash import BlockHasher
from twinfer.core.cost import StepCost
from twinfer.engine.assemble import emulated_capabilities
from twinfer.engine.prefix import PrefixCache
from twinfer.engine.scheduler import Limits, Scheduler
from twinfer.engine.sequence import Purpose, TokenSequence
from twinfer.kv.block_pool import BlockPool

LAST_STRIDE = 128
CAPABILITIES = emulated_capabilities(MODEL, POOL)


def strides(num_tokens: int, purpose: Purpose, max_step_tokens: int) -> Iterator[int]:
    """Positions of each step of a prompt that is alone."""
    prefixes = PrefixCache(BlockPool(num_tokens), BlockHasher(b"key", CAPABILITIES.fingerprint, "", 16))
    scheduler = Scheduler(prefixes, Limits(max_step_tokens, 8, 8, 10_000, last_stride=LAST_STRIDE))
    sequence = TokenSequence(a_request(list(range(num_tokens)), 1), purpose, 0.0)
    scheduler.waiting.append(sequence, sequence.rank)
    while sequence.num_pending:
        [piece], _ = scheduler.plan(0.0)
        sequence.num_computed += len(piece.token_ids)
        yield len(piece.token_ids)


@pytest.mark.parametrize(
    ("num_tokens", "purpose", "expected"),
    [
        (1000, Purpose.ANSWER, [512, 488]),
        (1000, Purpose.EXPORT, [500, 250, 250]),
        (4096, Purpose.EXPORT, [512] * 6 + [512, 256, 128, 128]),
        (2 * LAST_STRIDE - 1, Purpose.EXPORT, [2 * LAST_STRIDE - 1]),
    ],
)
def test_a_prompt_that_is_handed_over_ends_in_short_strides(
    num_tokens: int, purpose: Purpose, expected: list[int]
) -> None:
    """So that little is left to be sent when the last one is computed; never in one that is not worth a step."""
    assert expected == list(strides(num_tokens, purpose, 512))


@pytest.mark.parametrize(("goal_ms", "expected"), [(0, 512), (150, 96), (60, 32)])
def test_beside_answers_a_prompt_takes_what_keeps_the_step_within_its_goal(goal_ms: float, expected: int) -> None:
    """A step of 50 ms has room for a hundred positions of 1 ms in 150 ms, in whole tiles; never for less than a few."""
    cost = StepCost(fixed_s=0.05, token_s=0.001, pair_s=0.0, row_s=0.0, context_s=0.0)
    prefixes = PrefixCache(BlockPool(100), BlockHasher(b"key", CAPABILITIES.fingerprint, "", 16))
    scheduler = Scheduler(prefixes, Limits(512, 8, 8, 10_000, step_goal_s=goal_ms / 1e3))
    answer, prompt = (
        TokenSequence(a_request(list(range(length)), 9, name), Purpose.ANSWER, 0.0)
        for length, name in ((8, "answer"), (700, "prompt"))
    )
    scheduler.waiting.append(answer, answer.rank)
    scheduler.plan(0.0, cost)
    answer.num_computed = 7
    scheduler.waiting.append(prompt, prompt.rank)
    pieces, _ = scheduler.plan(0.0, cost)
    assert [1, min(expected, 511)] == [len(piece.token_ids) for piece in pieces]
    prompt.num_computed = expected
    scheduler.remove(answer)
    pieces, _ = scheduler.plan(0.0, cost)
    assert [min(512, 700 - expected)] == [len(piece.token_ids) for piece in pieces]
