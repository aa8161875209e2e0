"""Draws the tokens of a whole step in one pass.

1. Where all rows are greedy and ask for nothing else, each takes the highest logit, lowest id among equals, and that is
   all: by our kernel, whose one pass leaves no thread of torch's spinning on the core that the next step wants.
2. Rows whose logits are not all finite are set aside; their draw is ``None``.
3. Penalties, biases and masks of grammars change the logits, in this order: a copy of them, wherever log probabilities
   are reported, which do not see the changes.
4. Greedy rows take the highest; the others divide by the temperature and go through ``inverse_cdf``.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from twinfer.core.step import Draw, Slice
from twinfer.core.tokens import Logprob
from twinfer.grammar.masks import NO_MASKS, Masks
from twinfer.model.adjust import PromptIds, adjust_, forbid_, is_adjusted
from twinfer.model.inverse_cdf import Truncation, decide, order, uniform
from twinfer.model.kernels.library import highest

_HEAD = 256
"""Candidates that are tried before a whole row is put in order."""
_BLOCK = 32
_COLDEST = 1e-6
"""Lower temperatures count as this one: in fp32 they would divide zero by zero."""


class Sampler:
    """Draws for consecutive steps; keeps only what it derived from the last step's prompts."""

    def __init__(self) -> None:
        self._prompts = PromptIds()

    def sample(self, logits: Tensor, parts: Sequence[Slice], masks: Masks = NO_MASKS) -> list[Draw | None]:
        """Draw one token per row.

        Args:
            logits: ``[R, vocab]`` in any floating type. Masks may be written into them.
            parts: what each row is drawn for; all have a ``sample_index``.
            masks: of rows that are held to a grammar.

        Returns:
            One draw per row; ``None`` where the logits are not finite.
        """
        logits = logits.float()
        if not masks.rows and all(map(_is_simple, parts)) and (ids := highest(logits)) is not None:
            return [Draw(token) if token >= 0 else None for token in ids]
        finite = _finite_rows(logits)
        if not all(finite):
            logits = logits.masked_fill(~torch.tensor(finite, device=logits.device)[:, None], 0.0)
        tokens = self._choose(logits, parts, masks)
        draws = _with_logprobs(logits, tokens, parts)
        return [draw if ok else None for draw, ok in zip(draws, finite, strict=True)]

    def _choose(self, logits: Tensor, parts: Sequence[Slice], masks: Masks) -> list[int]:
        is_adjusting = any(is_adjusted(part) for part in parts)
        if is_adjusting or (masks.rows and any(part.request.top_logprobs is not None for part in parts)):
            logits = logits.clone()
        if is_adjusting:
            adjust_(logits, parts, self._prompts.update(parts))
        if masks.rows:
            forbid_(logits, masks)
        sampled = [row for row, part in enumerate(parts) if part.request.sampling.temperature > 0]
        if len(sampled) == len(parts):
            return _sample_rows(logits, parts)
        tokens: list[int] = logits.max(dim=-1).indices.tolist()  # as argmax, in a tenth of the time on a CPU
        if sampled:
            for row, token in zip(sampled, _sample_rows(logits[sampled], [parts[row] for row in sampled]), strict=True):
                tokens[row] = token
        return tokens


def _is_simple(part: Slice) -> bool:
    request = part.request
    return request.sampling.temperature <= 0 and request.top_logprobs is None and not is_adjusted(part)


def _finite_rows(logits: Tensor) -> list[bool]:
    """Which rows have neither NaN nor infinity. A row's sum is nearly free, and finite only if the row is."""
    if bool(torch.isfinite(logits.sum(dim=-1)).all()):
        return [True] * len(logits)
    found: list[bool] = torch.isfinite(logits).all(dim=-1).tolist()
    return found


def _sample_rows(logits: Tensor, parts: Sequence[Slice]) -> list[int]:
    """One token per row, all of them with a temperature above 0."""
    vocab_size = logits.shape[1]
    samplings = [part.request.sampling for part in parts]
    uniforms = [uniform(part.request.sampling.seed, part.request.choice, part.sample_index or 0) for part in parts]
    how = Truncation.of(samplings, uniforms, vocab_size)
    temperatures = torch.tensor([max(_COLDEST, sampling.temperature) for sampling in samplings], device=logits.device)
    scaled = (logits - logits.amax(dim=-1, keepdim=True)).div_(temperatures[:, None])
    totals = _totals(scaled.exp())
    best, ids = _head(scaled)
    places = decide(best, totals, how, vocab_size)
    tokens: list[int] = ids[np.arange(len(parts)), places].tolist()
    for row in np.flatnonzero(places < 0).tolist():
        every, ids_of_row = order(scaled[row : row + 1].cpu().numpy(), np.arange(vocab_size)[None])
        place = decide(every, totals[row : row + 1], how.row(row), vocab_size)
        tokens[row] = int(ids_of_row[0, place[0]])
    return tokens


def _totals(values: Tensor) -> np.ndarray:
    """Sums of rows in fp64: by numpy, several times as fast as torch, but not at the price of leaving a GPU."""
    if values.device.type == "cpu":
        return np.asarray(values.numpy().sum(axis=-1, dtype=np.float64))
    return values.sum(dim=-1, dtype=torch.float64).cpu().numpy()


def _head(values: Tensor, at_least: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The best values of each row with their ids, in order."""
    best, ids = _top(values, min(max(_HEAD, at_least), values.shape[1]))
    return order(best.cpu().numpy(), ids.cpu().numpy())


def _top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``topk``, three times faster on long rows: the best lie in the blocks with the best maxima, and those are few."""
    num_rows, length = values.shape
    if length < 4 * count * _BLOCK:
        best, ids = values.topk(count, dim=-1)
        return best, ids
    blocks = F.pad(values, (0, -length % _BLOCK), value=-torch.inf).view(num_rows, -1, _BLOCK)
    chosen = blocks.amax(dim=-1).topk(count, dim=-1).indices
    found = blocks.gather(1, chosen[..., None].expand(-1, -1, _BLOCK)).flatten(1)
    best, places = found.topk(count, dim=-1)
    return best, chosen.gather(1, places // _BLOCK) * _BLOCK + places % _BLOCK


def _with_logprobs(logits: Tensor, tokens: list[int], parts: Sequence[Slice]) -> list[Draw]:
    draws = [Draw(token) for token in tokens]
    asked = [row for row, part in enumerate(parts) if part.request.top_logprobs is not None]
    if not asked:
        return draws
    logprobs = logits[asked].log_softmax(dim=-1)
    chosen = logprobs.gather(1, torch.tensor([[tokens[row]] for row in asked], device=logits.device))
    best, ids = _head(logprobs, max(parts[row].request.top_logprobs or 0 for row in asked))
    for i, row in enumerate(asked):
        count = parts[row].request.top_logprobs or 0
        top = zip(ids[i, :count].tolist(), best[i, :count].tolist(), strict=True)
        draws[row] = Draw(tokens[row], chosen[i].item(), tuple(Logprob(token, value) for token, value in top))
    return draws
