"""A decode step of fixed shape, recorded when it first occurs and repeated ever after.

On a GPU a small batch takes less time to compute than to launch, kernel by kernel. So a step of single tokens is padded
to one of a few shapes (``buckets``), recorded once, and launched as a whole from then on:

1. All that differs between two steps is one tensor of integers: each sequence's token, position and blocks.
2. ``fixed_batch`` works out everything else from it on the device, and ``decoder.forward`` computes it, as always.
3. Sequences that only pad write to the scratch block, which nobody owns, and see nothing but that position. A sequence
   never looks at what stands behind its last block.

Steps with prompts in them, those that padding would make much larger, and models whose work depends on values (experts)
go the general way.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twinfer.core.step import Slice
from twinfer.model.batch import is_decoding
from twinfer.model.block_tables import BlockArray, BlockTables
from twinfer.model.buckets import Bucket, Buckets, buckets_for
from twinfer.model.decoder import forward
from twinfer.model.fixed_batch import BLOCKS, POSITION, TOKEN, fixed_batch
from twinfer.model.paged_kv import PagedKV
from twinfer.model.recorder import Recorder
from twinfer.model.rope import RopeTable
from twinfer.model.spec import ModelSpec, RopeSpec
from twinfer.model.weights import Weights

MAX_RECORDINGS = 48
"""Each keeps its logits, and what its launch needs; the shape unused for longest makes room."""


@dataclass(frozen=True, slots=True)
class _Recording:
    """A shape's inputs ``[sequences, 2 + blocks]``, and what computes the logits of what they hold."""

    inputs: Tensor
    repeat: Callable[[], Tensor]


class CapturedStep:
    """Steps of single tokens, all of which draw.

    Args:
        compute: from inputs to logits ``[sequences, vocab]``; stores K and V on the way.
        kv: the pool, with a scratch block.
        buckets: shapes that are recorded.
        recorder: of the pool's device.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor], kv: PagedKV, buckets: Buckets, recorder: Recorder) -> None:
        self._compute = compute
        self._kv = kv
        self._buckets = buckets
        self._recorder = recorder
        self._tables = BlockTables(kv.layout.block_tokens)
        self._recordings: OrderedDict[Bucket, _Recording] = OrderedDict()

    @property
    def recorded(self) -> tuple[Bucket, ...]:
        """The shapes that are kept, the one used last at the end."""
        return tuple(self._recordings)

    def takes(self, slices: Sequence[Slice]) -> bool:
        """Whether a step can be computed."""
        return all(map(is_decoding, slices)) and self._bucket(slices) is not None

    def logits(self, slices: Sequence[Slice]) -> Tensor:
        """Compute a step that ``takes`` accepts: ``[len(slices), vocab]``, until the next step overwrites them."""
        bucket = self._bucket(slices)
        assert bucket is not None
        rows = torch.from_numpy(self._laid_out(slices, self._tables.update(slices), bucket))
        recording = self._recordings.get(bucket)
        if recording is None:
            recording = self._record(bucket, rows.to(self._kv.pool.device))
        else:
            recording.inputs.copy_(rows)
            self._recordings.move_to_end(bucket)
        return recording.repeat()[: len(slices)]

    def _record(self, bucket: Bucket, inputs: Tensor) -> _Recording:
        recording = _Recording(inputs, self._recorder.record(lambda: self._compute(inputs)))
        self._recordings[bucket] = recording
        if len(self._recordings) > MAX_RECORDINGS:
            self._recordings.popitem(last=False)
        return recording

    def _bucket(self, slices: Sequence[Slice]) -> Bucket | None:
        return self._buckets.choose([self._kv.layout.blocks_for(part.end) for part in slices])

    def _laid_out(self, slices: Sequence[Slice], tables: Sequence[BlockArray], bucket: Bucket) -> BlockArray:
        assert self._kv.scratch is not None
        rows = np.full((bucket.sequences, BLOCKS + bucket.blocks), self._kv.scratch, np.int64)
        rows[:, [TOKEN, POSITION]] = 0
        for row, part, table in zip(rows, slices, tables, strict=False):
            row[TOKEN], row[POSITION] = part.token_ids[0], part.start
            row[BLOCKS : BLOCKS + len(table)] = table
        return rows


def captured_step(
    spec: ModelSpec,
    weights: Weights,
    ropes: Mapping[RopeSpec, RopeTable],
    kv: PagedKV,
    max_context_tokens: int,
    recorder: Recorder | None,
) -> CapturedStep | None:
    """Recorded steps of a model; ``None`` without recorder or scratch block, or where values decide what is done."""
    if recorder is None or kv.scratch is None or spec.experts is not None:
        return None

    def compute(inputs: Tensor) -> Tensor:
        return forward(fixed_batch(inputs, kv, set(spec.windows), weights.dtype), weights, spec, ropes, kv)

    return CapturedStep(compute, kv, buckets_for(max_context_tokens, kv.layout.block_tokens), recorder)
