"""The engine's two pure halves: ``begin`` decides a step, ``finish`` takes in what came of it.

1. ``submit`` queues a request; ``begin`` drops overdue ones and asks the scheduler for a plan.
2. Someone computes the plan: torch, an emulated device, or nobody while a virtual clock moves on.
3. ``finish`` advances the sequences, publishes full blocks to the prefix cache, ends answers, and reports.

A sequence in flight is never freed under the runner: ``cancel`` only marks it, and ``finish`` lets go of it. No clock,
no thread, no I/O in here; the caller serialises the calls.

A plan may stand for a run of steps that only decode, of which nothing in here changes what they compute
(``engine.decode_run``); whoever takes them ends the run when something comes from outside, and says how many it took.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from twinfer.core.block_hash import BlockHasher
from twinfer.core.cost import Ahead, prompt_work
from twinfer.core.errors import CapacityError, InvalidRequest
from twinfer.core.ids import RequestId
from twinfer.core.load import Counters, HostCounts, LoadReport
from twinfer.core.messages import FailureKind
from twinfer.core.request import GenerationRequest
from twinfer.core.service import Tier
from twinfer.core.step import Draw, Slice, StepPlan, StepResult
from twinfer.core.tokens import Timings, Token
from twinfer.engine.base import Exported, Failure, StepOutcome
from twinfer.engine.preempt import Claim, num_freed, yields
from twinfer.engine.prefix import PrefixCache
from twinfer.engine.scheduler import Limits, Scheduler
from twinfer.engine.sequence import Purpose, TokenSequence
from twinfer.engine.step_fit import StepFit
from twinfer.kv.block_pool import BlockPool


@dataclass(slots=True)
class _Report:
    """A step outcome under construction."""

    tokens: list[Token] = field(default_factory=list)
    finished: list[tuple[RequestId, Timings]] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    exported: list[Exported] = field(default_factory=list)

    def freeze(self) -> StepOutcome:
        return StepOutcome(tuple(self.tokens), tuple(self.finished), tuple(self.failed), tuple(self.exported))


class EngineLoop:
    """Sequences, queues and blocks of one engine.

    Args:
        pool: its KV blocks.
        hasher: names them by their contents.
        limits: of steps and queues.
        vocab_size: token ids are below it; ``None`` where they stand for anything.
    """

    def __init__(self, pool: BlockPool, hasher: BlockHasher, limits: Limits, vocab_size: int | None) -> None:
        self.pool = pool
        self.prefixes = PrefixCache(pool, hasher)
        self.block_tokens = hasher.block_tokens
        self.limits = limits
        self.parked: dict[RequestId, TokenSequence] = {}
        """Exports whose prompt is computed; their blocks stay until released."""
        self.host_counts: Counter[str] = Counter()
        """Of the host tier, by their names among the counters of a report."""
        self._vocab_size = vocab_size
        self._scheduler = Scheduler(self.prefixes, limits)
        self._sequences: dict[RequestId, TokenSequence] = {}
        self._no_deadline_before = math.inf
        self._follows = False
        self._prefill_tokens = 0
        self._cached_tokens = 0
        self._decode_tokens = 0
        self._steps = 0
        self._requests = 0
        self._failures = 0
        self._guesses = 0
        self._right_guesses = 0

    def check(self, request: GenerationRequest, num_emitted: int = 0) -> None:
        """Raise ``InvalidRequest`` unless such a sequence fits this engine."""
        prompt = request.prompt
        if not prompt:
            raise InvalidRequest("the prompt is empty; send at least one token")
        if len(prompt) + num_emitted >= self.limits.max_context_tokens:
            raise InvalidRequest(
                f"{len(prompt) + num_emitted} tokens leave no room for an answer in a context of "
                f"{self.limits.max_context_tokens}; shorten the prompt"
            )
        if self._vocab_size is not None and not 0 <= min(prompt) <= max(prompt) < self._vocab_size:
            raise InvalidRequest(f"the prompt holds token ids outside [0, {self._vocab_size})")
        if request.grammar is not None and not self.limits.grammars:
            raise InvalidRequest("this engine has no tokenizer.json to hold an answer to a grammar; ask for plain text")

    def submit(
        self,
        request: GenerationRequest,
        purpose: Purpose,
        now: float,
        emitted: tuple[int, ...] = (),
        foreign: str = "",
    ) -> None:
        """Queue a request; one that is known already is left as it is.

        Args:
            emitted: output tokens of an earlier attempt.
            foreign: numeric provenance, besides the engine's own, whose cached KV may stand for its prefix.

        Raises:
            InvalidRequest: it does not fit this engine.
            CapacityError: the queue has no place for one of its tier.
        """
        if request.request_id in self._sequences:
            return
        self.check(request, len(emitted))
        waiting = self._scheduler.waiting
        reserved = waiting.num_of(Tier.RESERVED.rank)
        if request.tier.is_full(self.limits.max_waiting, reserved, len(waiting) - reserved):
            raise CapacityError(f"the queue has no place for tier {request.tier}: {len(waiting)} wait; try again later")
        sequence = TokenSequence(request, purpose, arrived=now, output=list(emitted), foreign=foreign)
        self._adopt(sequence)
        waiting.append(sequence, sequence.rank)

    def resume(self, sequence: TokenSequence) -> None:
        """Take over a sequence whose prompt another worker computed into ``sequence.blocks``."""
        self.prefixes.publish(sequence)
        self._adopt(sequence)
        self._scheduler.running.append(sequence)

    def cancel(self, request_id: RequestId) -> None:
        """Forget a request; nothing more is reported of it."""
        sequence = self._sequences.get(request_id)
        if sequence is None:
            return
        if sequence.in_flight:
            sequence.cancelled = True
        else:
            self._drop(sequence)

    def begin(self, now: float, fit: StepFit | None = None) -> StepPlan | None:
        """What to compute next; ``None`` when there is nothing to do or no block to do it with.

        Args:
            fit: what steps were learned to cost, for those that have a goal.
        """
        if now >= self.pool.next_unpin:
            self.pool.unpin(now)
        expired = self._expired(now) if now >= self._no_deadline_before else ()
        for request_id in expired:
            self._drop(self._sequences[request_id])
        cost = fit.cost() if fit is not None and self.limits.step_goal_s else None
        slices, fresh = self._scheduler.plan(now, cost)
        follows, self._follows = self._follows, False
        if not slices and not expired:
            return None
        steps = self._scheduler.run_on(slices, fresh) if slices and not expired else 1
        return StepPlan(tuple(slices), tuple(fresh), expired, steps, self._no_deadline_before, follows)

    def claim(self, claim: Claim | None) -> None:
        """The first handoff that waits for room needs so much; ``None``: none waits."""
        self._scheduler.claim = claim

    def promise(self, num_blocks: int) -> bool:
        """Set room aside for a handoff; false where there is none, or one that waits in the queue needs it first."""
        if num_blocks + self._scheduler.set_aside > self.pool.num_available or not self.pool.promise(num_blocks):
            return False
        self._scheduler.passed()
        return True

    @property
    def requests(self) -> tuple[RequestId, ...]:
        """All that it knows, those that are parked among them."""
        return tuple(self._sequences)

    @property
    def has_waiting(self) -> bool:
        """Whether somebody is in the queue."""
        return bool(self._scheduler.waiting)

    @property
    def num_awaited(self) -> int:
        """Blocks of the pool that have to be free or spare for the next one to be admitted."""
        return self._scheduler.num_awaited

    def recalling(self) -> Iterator[TokenSequence]:
        """Sequences that wait for blocks out of the host tier, oldest first."""
        return (one for one in self._scheduler.running if one.recall is not None and not one.recall.is_over)

    def recalled(self, sequence: TokenSequence, num_right: int, num_copied: int) -> None:
        """Blocks of a sequence came back, of which the first ``num_right`` are what they were; the rest is computed."""
        recall, host = sequence.recall, self.prefixes.host
        assert recall is not None
        assert host is not None
        sequence.in_flight = False
        if sequence.cancelled:
            self._drop(sequence)
            return
        if num_right < num_copied:
            host.discard(recall.hold, recall.num_back + num_right)
            self.host_counts["host_bad_blocks"] += 1
        recall.num_back += num_right
        recall.is_over = num_right < num_copied or recall.num_back == len(recall.hold.slots)
        sequence.num_computed = sequence.cached_tokens = (recall.first_block + recall.num_back) * self.block_tokens
        self.host_counts["host_tokens"] += num_right * self.block_tokens
        self.prefixes.publish(sequence)
        if recall.is_over:
            host.release(recall.hold)

    def finish(self, plan: StepPlan, result: StepResult, now: float) -> StepOutcome:
        """Advance by what was computed."""
        self._steps += bool(plan.slices) + len(result.later)
        self._follows = True
        report = _Report()
        failed = dict(result.failed)
        for row, (part, draw) in enumerate(zip(plan.slices, result.draws, strict=True)):
            sequence = self._sequences.get(part.request.request_id)
            self._guesses += part.is_guess
            if sequence is None or not sequence.expects(part):
                continue  # a guess after one that was wrong, or after the end
            sequence.in_flight = False
            if sequence.cancelled:
                self._drop(sequence)
            elif draw is None and part.request.request_id in failed:
                self._fail(sequence, FailureKind.ENGINE, failed[part.request.request_id], report)
            else:
                if draw is not None and result.later:
                    token_ids = [draw.token_id, *(tokens[row] for tokens in result.later)]
                    self._advance_run(sequence, token_ids, (now - result.later_s, now), report)
                else:
                    self._advance(sequence, part, draw, now, report)
        if len(result.later) + 1 < plan.steps:
            self._scheduler.cut_run()
        for request_id in plan.expired:
            self._failures += 1
            report.failed.append(Failure(request_id, FailureKind.DEADLINE, "the request's time ran out"))
        return report.freeze()

    def load(self) -> LoadReport:
        """Queues, blocks and counts."""
        waiting, host = self._scheduler.waiting, self.prefixes.host
        counters = Counters(
            **self.host_counts,
            host_evicted_blocks=0 if host is None else host.num_evicted,
            prefill_tokens=self._prefill_tokens,
            cached_tokens=self._cached_tokens,
            decode_tokens=self._decode_tokens,
            steps=self._steps,
            preemptions=self._scheduler.num_preemptions,
            requests=self._requests,
            failures=self._failures,
            guessed_tokens=self._guesses,
            right_guesses=self._right_guesses,
        )
        running = self._scheduler.running
        decoding = [sequence for sequence in running if sequence.num_pending <= 1]
        ahead = Ahead()
        for sequence in (*running, *waiting):
            if sequence.num_pending > 1:
                ahead.add(prompt_work(sequence.num_computed, sequence.num_tokens), sequence.rank)
        return LoadReport(
            blocks=self.pool.counts(),
            counters=counters,
            running=len(running),
            waiting=len(waiting),
            waiting_tokens=sum(sequence.num_pending for sequence in waiting),
            backlog=ahead.before[-1],
            backlog_before=tuple(ahead.before),
            yielding_blocks=num_freed(filter(yields, running), self.pool.num_holders),
            decode_rows=len(decoding),
            decode_context=sum(sequence.num_computed for sequence in decoding),
            host=HostCounts() if host is None else host.counts(),
        )

    def _advance(self, sequence: TokenSequence, part: Slice, draw: Draw | None, now: float, report: _Report) -> None:
        first_final = sequence.num_computed // self.block_tokens
        if sequence.num_computed == sequence.cached_tokens:
            self._cached_tokens += sequence.cached_tokens
            first_final = 0
        if part.sample_index is not None and len(part.token_ids) == 1 and part.sample_index > 0:
            self._decode_tokens += 1
        else:
            self._prefill_tokens += len(part.token_ids)
        self._right_guesses += part.is_guess
        sequence.num_computed = part.end
        self.prefixes.publish(sequence)
        if sequence.num_computed >= len(sequence.request.prompt):
            self.prefixes.pin(sequence, now)
        self._scheduler.let_go(sequence)
        if sequence.purpose is Purpose.EXPORT:
            self._export(sequence, first_final, report)
        if draw is not None and part.sample_index is not None:
            self._draw(sequence, part.sample_index, draw, now, report)

    def _advance_run(
        self, sequence: TokenSequence, token_ids: list[int], times: tuple[float, float], report: _Report
    ) -> None:
        """Take in all steps of a run, whose first and last ended at these times; only the last may be the end."""
        index = len(sequence.output)
        self._decode_tokens += len(token_ids)
        sequence.num_computed += len(token_ids)
        sequence.output += token_ids[:-1]
        self.prefixes.publish(sequence)
        if sequence.first_token is None:
            sequence.first_token = times[0]
        request_id = sequence.request.request_id
        report.tokens += [Token(request_id, n, token_id) for n, token_id in enumerate(token_ids[:-1], index)]
        self._draw(sequence, len(sequence.output), Draw(token_ids[-1]), times[1], report)

    def _draw(self, sequence: TokenSequence, index: int, draw: Draw, now: float, report: _Report) -> None:
        sequence.output.append(draw.token_id)
        sequence.last_token = now
        if sequence.first_token is None:
            sequence.first_token = now
        reason = sequence.finish_reason(self.limits.max_context_tokens)
        request_id = sequence.request.request_id
        report.tokens.append(Token(request_id, index, draw.token_id, draw.logprob, draw.top, reason))
        if sequence.purpose is Purpose.EXPORT:
            self._scheduler.running.remove(sequence)
            self.parked[request_id] = sequence
            report.finished.append((request_id, sequence.timings(self.block_tokens)))
        elif reason is not None:
            report.finished.append((request_id, sequence.timings(self.block_tokens)))
            self._drop(sequence)

    def _export(self, sequence: TokenSequence, first_block: int, report: _Report) -> None:
        complete = sequence.num_computed == len(sequence.request.prompt)
        last_block = len(sequence.blocks) if complete else sequence.num_computed // self.block_tokens
        if complete or last_block > first_block:
            blocks = tuple(sequence.blocks[first_block:last_block])
            generations = self.pool.generations(blocks)
            report.exported.append(Exported(sequence.request.request_id, first_block, blocks, generations, complete))

    def _fail(self, sequence: TokenSequence, kind: FailureKind, reason: str, report: _Report) -> None:
        self._failures += 1
        report.failed.append(Failure(sequence.request.request_id, kind, reason))
        self._drop(sequence)

    def _adopt(self, sequence: TokenSequence) -> None:
        self._requests += 1
        self._sequences[sequence.request.request_id] = sequence
        self._no_deadline_before = min(self._no_deadline_before, sequence.deadline)

    def _expired(self, now: float) -> tuple[RequestId, ...]:
        """Requests whose time is over, and from now on a later bound on the next one's."""
        unparked = [sequence for sequence in self._sequences.values() if sequence.request.request_id not in self.parked]
        self._no_deadline_before = min((one.deadline for one in unparked if one.deadline > now), default=math.inf)
        return tuple(sequence.request.request_id for sequence in unparked if now >= sequence.deadline)

    def _drop(self, sequence: TokenSequence) -> None:
        request_id = sequence.request.request_id
        del self._sequences[request_id]
        if self.parked.pop(request_id, None) is None:
            self._scheduler.remove(sequence)
        else:
            self.pool.release(sequence.held_blocks)
