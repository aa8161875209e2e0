"""Executes step plans: the one place where a plan, the weights and the KV pool meet."""

from collections.abc import Sequence

import torch
from torch import Tensor

from twinfer.core.ids import ModelId, RequestId, TenantId
from twinfer.core.request import GenerationRequest, Sampling, Stopping
from twinfer.core.step import Draw, Slice, StepPlan, StepResult
from twinfer.grammar.masks import NO_MASKS, GrammarMasks, Masks
from twinfer.model.batch import BatchBuilder
from twinfer.model.captured_step import captured_step
from twinfer.model.decoder import forward
from twinfer.model.kernel_step import kernel_step
from twinfer.model.paged_kv import PagedKV
from twinfer.model.recorder import Recorder
from twinfer.model.rope import RopeTable
from twinfer.model.sampler import Sampler
from twinfer.model.spec import ModelSpec
from twinfer.model.weights import Weights

_NOT_FINITE = "the model produced non-finite logits for this request; serve it in fp32 or bf16, or check the weights"


class ModelRunner:
    """Computes steps of one model on the device of its weights. Not for several threads at once.

    Args:
        spec: the model's shape.
        weights: on any torch device; their type is that of all arithmetic.
        kv: the pool on the same device; the caller's, and written by every step.
        max_context_tokens: positions of a sequence, at most.
        masks: of requests with a grammar; without them there may be none.
        recorder: of the device; with it, and a scratch block, decode steps are recorded.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        kv: PagedKV,
        max_context_tokens: int,
        masks: GrammarMasks | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._spec = spec
        self._weights = weights
        self._kv = kv
        self._ropes = {
            rope: RopeTable(rope, spec.head_dim, max_context_tokens, weights.device) for rope in set(spec.ropes)
        }
        self._batches = BatchBuilder(self._kv, spec.windows, weights.dtype)
        self._kernel_step = kernel_step(spec, weights, self._ropes, kv.pool, kv.layout)
        self._captured_step = captured_step(spec, weights, self._ropes, kv, max_context_tokens, recorder)
        self._sampler = Sampler()
        self._max_context_tokens = max_context_tokens
        self._masks = masks

    def execute(self, plan: StepPlan) -> StepResult:
        """Zero the fresh blocks, compute all slices, store their K and V, and draw.

        A request whose logits are not finite, or that cannot follow its grammar,
        is in the result's ``failed``; the others are not concerned.
        """
        with torch.inference_mode():
            self._kv.zero(plan.fresh_blocks)
            if not plan.slices:
                return StepResult(())
            logits = self._logits(plan.slices)
            drawing = [part for part in plan.slices if part.sample_index is not None]
            masks = NO_MASKS if self._masks is None else self._masks.compute(plan.slices)
            draws = iter(self._sampler.sample(logits, drawing, masks) if drawing else ())
        return _result(plan, [None if part.sample_index is None else next(draws) for part in plan.slices], masks)

    def _logits(self, slices: Sequence[Slice]) -> Tensor:
        for step in (self._kernel_step, self._captured_step):
            if step is not None and step.takes(slices):
                return step.logits(slices)
        return forward(self._batches.build(slices), self._weights, self._spec, self._ropes, self._kv)

    def warm_up(self) -> None:
        """Run a small prompt and a decode step, so that the first request does not pay for lazy initialisation.

        To be called before the pool is used: it writes to the first blocks and clears them again.
        """
        layout = self._kv.layout
        length = min(layout.block_tokens * min(2, len(self._kv.pool)), self._max_context_tokens) - 1
        blocks = tuple(range(layout.blocks_for(length + 1)))
        request = GenerationRequest(
            RequestId("warm-up"), ModelId(""), TenantId(""), (0,) * length, Stopping(2), Sampling(top_p=0.9)
        )
        self.execute(StepPlan((Slice(request, request.prompt, 0, blocks, 0, ()),)))
        self.execute(StepPlan((Slice(request, (0,), length, blocks, 1, (0,)),)))
        self.execute(StepPlan((), fresh_blocks=blocks))


def _result(plan: StepPlan, draws: list[Draw | None], masks: Masks) -> StepResult:
    """The draws, but for those of requests that failed."""
    failed = dict(masks.failed)
    for index, (part, draw) in enumerate(zip(plan.slices, draws, strict=True)):
        if part.request.request_id in failed:
            draws[index] = None
        elif draw is None and part.sample_index is not None:
            failed[part.request.request_id] = _NOT_FINITE
    return StepResult(tuple(draws), tuple(failed.items()))
