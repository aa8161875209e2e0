"""What changes logits before a token is drawn: penalties, biases, the stop tokens that come too early, and grammars.

In this order: repetition penalty (CTRL, 2019), presence and frequency penalties, logit bias, minimum length. All rows
are changed by three scatters, whatever the batch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from twinfer.core.ids import RequestId
from twinfer.core.step import Slice
from twinfer.grammar.masks import Masks
from twinfer.model.kernels.library import forbid

IntArray = NDArray[np.int64]
_EIGHT_BITS = torch.where((torch.arange(256)[:, None] >> torch.arange(8)) % 2 == 1, 0.0, -torch.inf)
"""``[256, 8]``: what the bits of a byte add to eight logits, the lowest first."""


class PromptIds:
    """The distinct tokens of the prompts in the last step, so that a long prompt is sorted once."""

    def __init__(self) -> None:
        self._kept: dict[RequestId, IntArray] = {}

    def update(self, parts: Sequence[Slice]) -> list[IntArray | None]:
        """Per part its prompt's distinct tokens; ``None`` where no repetition penalty asks for them."""
        kept: dict[RequestId, IntArray] = {}
        for part in parts:
            request = part.request
            if request.sampling.repetition_penalty != 1.0:
                known = self._kept.get(request.request_id)
                kept[request.request_id] = np.unique(np.asarray(request.prompt, np.int64)) if known is None else known
        self._kept = kept
        return [kept.get(part.request.request_id) for part in parts]


def is_adjusted(part: Slice) -> bool:
    """Whether any of this module's changes concerns a part."""
    sampling = part.request.sampling
    return sampling.needs_history or bool(sampling.logit_bias) or _stops_too_early(part)


def adjust_(logits: Tensor, parts: Sequence[Slice], prompts: Sequence[IntArray | None]) -> None:
    """Apply all changes in place. Ids outside the vocabulary change nothing.

    Args:
        logits: ``[R, vocab]``.
        parts: what each row is drawn for.
        prompts: what ``PromptIds`` has for them.
    """
    repeated, subtracted, biased, masked = (_Entries(logits.shape[1]) for _ in range(4))
    for row, (part, prompt) in enumerate(zip(parts, prompts, strict=True)):
        sampling = part.request.sampling
        if sampling.needs_history:
            emitted, counts = np.unique(np.asarray(part.emitted, np.int64), return_counts=True)
            subtracted.add(row, emitted, sampling.presence_penalty + sampling.frequency_penalty * counts)
            if prompt is not None:
                repeated.add(row, np.union1d(prompt, emitted), sampling.repetition_penalty)
        if sampling.logit_bias:
            biased.add(row, np.array(list(sampling.logit_bias)), np.array(list(sampling.logit_bias.values())))
        if _stops_too_early(part):
            masked.add(row, np.unique(part.request.stopping.stop_token_ids), np.inf)
    if repeated:
        index, penalty = repeated.tensors(logits.device)
        found = logits[index]
        logits[index] = torch.where(found > 0, found / penalty, found * penalty)
    for entries, sign in ((subtracted, -1.0), (biased, 1.0), (masked, -1.0)):
        if entries:
            index, values = entries.tensors(logits.device)
            logits[index] += sign * values


def forbid_(logits: Tensor, masks: Masks) -> None:
    """Set the logits ``[R, vocab]`` of what grammars do not permit to minus infinity, in place.

    Without our kernel bits become floats eight at a time, by a table. Filling by a mask costs ten times as much on a
    CPU, since what is permitted is hard to foresee for it.
    """
    if forbid(logits, masks.bits, masks.rows):
        return
    bits = torch.frombuffer(bytearray(masks.bits), dtype=torch.uint8).view(len(masks.rows), -1).to(logits.device)
    forbidden = F.embedding(bits.int(), _EIGHT_BITS.to(logits.device)).flatten(1)[:, : logits.shape[1]]
    logits.index_add_(0, torch.tensor(masks.rows, device=logits.device), forbidden.to(logits.dtype))


def _stops_too_early(part: Slice) -> bool:
    stopping = part.request.stopping
    return part.sample_index is not None and part.sample_index < stopping.min_tokens and bool(stopping.stop_token_ids)


class _Entries:
    """Values for single elements of the logits; no element twice."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._rows: list[IntArray] = []
        self._ids: list[IntArray] = []
        self._values: list[NDArray[np.float32]] = []

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, row: int, ids: IntArray, values: NDArray[np.floating[Any]] | float) -> None:
        inside = (ids >= 0) & (ids < self._vocab_size)
        self._rows.append(np.full(inside.sum(), row))
        self._ids.append(ids[inside])
        self._values.append(np.broadcast_to(np.asarray(values, np.float32), ids.shape)[inside])

    def tensors(self, device: torch.device) -> tuple[tuple[Tensor, Tensor], Tensor]:
        rows, ids = torch.from_numpy(np.concatenate(self._rows)), torch.from_numpy(np.concatenate(self._ids))
        return (rows.to(device), ids.to(device)), torch.from_numpy(np.concatenate(self._values)).to(device)
