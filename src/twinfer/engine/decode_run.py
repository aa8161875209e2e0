"""Decode steps that may be taken as one, because nothing in the engine can change what they compute.

A run is as good as its steps one by one: every running sequence decodes one token in each of them, none ends by its
length before the last one, and all blocks that they need can be had without taking any from others. What remains is up
to whoever takes the steps: a run ends early with a stop token, at a deadline, and when anything comes from outside.
"""

from collections.abc import Sequence

from twinfer.engine.sequence import Purpose, TokenSequence
from twinfer.kv.block_pool import BlockPool


def decode_run(running: Sequence[TokenSequence], max_steps: int, max_context_tokens: int, block_tokens: int = 0) -> int:
    """How many steps the sequences that run may take as one, blocks aside; at least 1.

    Args:
        running: all of them; each has its place in every step.
        max_steps: no more than that.
        max_context_tokens: prompt and output of one sequence together.
        block_tokens: of blocks of which the run may fill none before its last step; 0 where it may.
    """
    steps = [max_steps, *(_steps_left(sequence, max_context_tokens) for sequence in running)]
    if block_tokens:
        steps += [block_tokens - sequence.num_computed % block_tokens for sequence in running]
    return max(1, min(steps))


def grow_run(running: Sequence[TokenSequence], steps: int, pool: BlockPool, block_tokens: int) -> tuple[int, list[int]]:
    """Give the sequences the blocks that the later steps of a run need, in the order in which these would.

    Returns:
        how many of the steps have theirs, and the blocks.
    """
    fresh: list[int] = []
    for step in range(1, steps):
        short = [s for s in running if s.num_computed + 1 + step > len(s.blocks) * block_tokens]
        taken = pool.allocate(len(short)) if short else []
        if taken is None:
            return step, fresh
        for sequence, block in zip(short, taken, strict=True):
            sequence.blocks.append(block)
        fresh += taken
    return steps, fresh


def give_back(running: Sequence[TokenSequence], pool: BlockPool, block_tokens: int) -> None:
    """Release the blocks that a run was given for steps that it did not take."""
    for sequence in running:
        needed = -(-sequence.num_computed // block_tokens)
        if len(sequence.blocks) > needed and not sequence.in_flight:
            pool.release(sequence.blocks[needed:])
            sequence.blocks = sequence.blocks[:needed]  # a new list: what was derived from the old one is void


def _steps_left(sequence: TokenSequence, max_context_tokens: int) -> int:
    """Steps up to the one that must be its last; 1 when the next one is no plain decoding."""
    if sequence.num_pending != 1 or sequence.purpose is not Purpose.ANSWER:
        return 1
    if sequence.num_computed == sequence.cached_tokens:
        return 1  # nothing of it was computed here yet: its step counts as one of the prompt
    left = sequence.request.stopping.max_tokens - len(sequence.output)
    return min(left, max_context_tokens - sequence.num_tokens)
