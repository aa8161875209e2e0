"""Who computes what in the next step: continuous batching with chunked prefill, pure.

1. Decoding sequences come first, one position each, oldest first; each may need one more block.
2. Prompts under way take what is left of the step's token budget, by tier and then oldest first; but once the oldest
   got nothing of some steps in a row it comes before all others (``core.turns``). Beside answers they take no more than
   keeps the step within its goal (``engine.step_room``). One that is handed over shortens
   its strides towards its end, because the KV of the last one is what a decode worker waits for.
3. A step that only decodes, and few, guesses: tokens that a sequence may draw next are computed together with its last
   one, each as a slice of its own, as far as its blocks reach. Guesses that were wrong are overwritten by later steps.
4. Waiting ones are admitted in turn as long as budget and blocks last, before the prompts under way of lower tiers. All
   blocks for the tokens known are taken at admission, so a prompt never stops half-way for want of blocks; see 7 for
   the exception. A handoff that waits for room comes before waiting ones of lower tiers.
5. Where there is a host tier, admission waits until the blocks that it needs can go without being lost, and what the
   tier has of an admitted one is brought back into its blocks before it is in a step (``engine.host_exchange``).
6. When a decoding sequence finds no block, the youngest answer of the last tier that is not yet in this plan gives up
   its blocks and waits at the front of its tier; what it had computed stays in the prefix cache as long as nobody needs
   the room. Flex answers, the youngest first, also make room for an urgent request or handoff that is the next to get
   some, if that is enough. Who gave way ``MAX_YIELDS`` times for its tier counts as of the best one. Exports are never
   preempted: their blocks may be on the wire.
7. Where every layer has a window, answers let go of blocks that no later position looks back to: these become ordinary
   cache. At admission they take what is in sight at once, and grow from chunk to chunk as they do when they decode.
   Exports take and keep all of theirs, so a handoff is always whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from twinfer.core.cost import StepCost
from twinfer.core.service import NUM_RANKS
from twinfer.core.step import Slice
from twinfer.core.turns import Patience, TurnQueue
from twinfer.engine.decode_run import decode_run, give_back, grow_run
from twinfer.engine.preempt import Claim, last_to_stay, make_way
from twinfer.engine.prefix import PrefixCache
from twinfer.engine.sequence import Purpose, Recall, TokenSequence
from twinfer.engine.step_room import StepRoom


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a step and on the queues.

    Attributes:
        max_step_tokens: positions in one step.
        step_goal_s: what a step that draws tokens for answers should take at most; 0 for as long as it takes.
        max_running: sequences that hold blocks.
        max_waiting: sequences that do not.
        max_context_tokens: prompt and output of one sequence together.
        sight_tokens: positions back to which any of them looks, with its own; 0 for all.
        guess_rows: positions of a step that only decodes, guesses included; 0 guesses nothing.
        last_stride: positions at the end of a prompt that is handed over; fewer would be computed less efficiently. 0
            takes as many as fit.
        max_run: decode steps that may be taken as one; 1 takes each by itself.
        run_within_blocks: such steps end as soon as one fills a block, so that the pool is the same during all of them
            as step by step. Otherwise they take the blocks they need beforehand, and publish what they filled at the
            end.
        grammars: whether answers can be held to a grammar.
    """

    max_step_tokens: int
    max_running: int
    max_waiting: int
    max_context_tokens: int
    sight_tokens: int = 0
    guess_rows: int = 0
    last_stride: int = 0
    max_run: int = 1
    run_within_blocks: bool = False
    grammars: bool = False
    step_goal_s: float = 0.0


@dataclass(slots=True)
class _Step:
    """A plan under construction."""

    budget: int
    room: StepRoom | None = None
    """Beside answers; ``None`` for whatever the budget has."""
    slices: list[Slice] = field(default_factory=list)
    fresh: list[int] = field(default_factory=list)
    admitted: list[TokenSequence] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return not self.budget or (self.room is not None and self.room.is_full)

    def share(self, wanted: int, start: int) -> int:
        """How many of the wanted positions of a prompt it takes, after so many others of it."""
        within = min(self.budget, wanted)
        return within if self.room is None else self.room.of(within, start)

    def take(self, part: Slice) -> None:
        self.slices.append(part)
        self.budget -= len(part.token_ids)
        if self.room is not None:
            self.room.take(len(part.token_ids), part.start)


class Scheduler:
    """The queues of one engine, and the only place that gives blocks to sequences.

    Attributes:
        claim: the room that the first of the handoffs that wait for some needs; ``None`` when none waits.
    """

    def __init__(self, prefixes: PrefixCache, limits: Limits) -> None:
        self.prefixes = prefixes
        self.pool = prefixes.pool
        self.limits = limits
        self.waiting: TurnQueue[TokenSequence] = TurnQueue()
        self.running: list[TokenSequence] = []
        self.claim: Claim | None = None
        self.num_preemptions = 0
        self.num_awaited = 0
        """Blocks that have to be free or spare for the next one to be admitted; 0 unless it waits for that alone."""
        self._patience = Patience()

    def plan(self, now: float, cost: StepCost | None = None) -> tuple[list[Slice], list[int]]:
        """Choose the slices of the next step, and the blocks to be zeroed for them.

        Args:
            cost: what steps cost here, where it is known.
        """
        self.num_awaited = 0
        self._make_way()
        step = _Step(self.limits.max_step_tokens)
        ready = [sequence for sequence in self.running if sequence.recall is None or sequence.recall.is_over]
        pending = [sequence.num_pending for sequence in ready]
        decoding = [sequence for sequence, left in zip(ready, pending, strict=True) if left == 1]
        prefilling = [sequence for sequence, left in zip(ready, pending, strict=True) if left > 1]
        for sequence in decoding:
            self._advance(sequence, min(step.budget, 1), step)
        step.room = self._room_beside(step.slices, cost)
        self._continue(prefilling, step, now)
        self._admit_before(NUM_RANKS, step, now)
        if self.limits.guess_rows and all(len(part.token_ids) == 1 for part in step.slices):
            step.slices += self._guesses(decoding, min(step.budget, self.limits.guess_rows - len(step.slices)))
        return step.slices, step.fresh

    def run_on(self, slices: Sequence[Slice], fresh: list[int]) -> int:
        """How many steps may be taken as one from a plan on, which is only decoding; gives them their blocks."""
        limits = self.limits
        if limits.max_run == 1 or limits.sight_tokens or limits.guess_rows or self.claim is not None:
            return 1
        if len(slices) < len(self.running):
            return 1
        block_tokens = self.prefixes.block_tokens
        if limits.run_within_blocks:
            return decode_run(self.running, limits.max_run, limits.max_context_tokens, block_tokens)
        if self.waiting:
            return 1  # one may be admitted once a block that is published meanwhile stands for its prefix
        steps = decode_run(self.running, limits.max_run, limits.max_context_tokens)
        steps, more = grow_run(self.running, steps, self.pool, block_tokens)
        fresh += more
        return steps

    def cut_run(self) -> None:
        """A run ended early, and all of its steps are taken in."""
        give_back(self.running, self.pool, self.prefixes.block_tokens)

    def remove(self, sequence: TokenSequence) -> None:
        """Take a sequence out of the queues and release its blocks."""
        if sequence in self.waiting:
            self.waiting.remove(sequence, sequence.rank)
        else:
            self.running.remove(sequence)
        self._release(sequence)

    def let_go(self, sequence: TokenSequence) -> None:
        """Release the blocks of an answer that are out of sight of its next position, and so of all later ones."""
        if self._lets_go(sequence):
            unseen = max(0, sequence.num_computed - self.limits.sight_tokens + 1) // self.prefixes.block_tokens
            self.pool.release(sequence.blocks[sequence.num_let_go : unseen])
            sequence.num_let_go = max(unseen, sequence.num_let_go)

    def passed(self) -> None:
        """A handoff was given room while others wait."""
        if self.waiting:
            self.waiting.pass_all()

    @property
    def set_aside(self) -> int:
        """Blocks that no handoff may be given now: they are for one that waits here and was passed too often."""
        return self._room_for(self.waiting.first) if self.waiting and self.waiting.is_overdue else 0

    def _continue(self, prefilling: Sequence[TokenSequence], step: _Step, now: float) -> None:
        """Prompts under way, and waiting ones before those of lower tiers."""
        if not prefilling:
            return
        eldest = prefilling[0]
        ranks = {id(sequence): sequence.rank for sequence in prefilling}
        if self._patience.is_over:
            ranks[id(eldest)] = -1
        for sequence in sorted(prefilling, key=lambda sequence: ranks[id(sequence)]):
            self._admit_before(ranks[id(sequence)], step, now)
            if sequence in step.admitted:
                continue  # it gave way in this plan, and had its turn then
            self._advance(sequence, step.share(self._stride(sequence), sequence.num_computed), step)
        self._patience.turned(eldest=eldest.in_flight)

    def _admit_before(self, rank: int, step: _Step, now: float) -> None:
        """Admit waiting ones of better ranks."""
        while not step.is_full and self.waiting and self.waiting.first_rank < rank:
            sequence = self.waiting.first
            if not self._admit(sequence, step.fresh):
                break
            step.admitted.append(sequence)
            if sequence.first_scheduled is None:
                sequence.first_scheduled = now
            if sequence.recall is None:
                share = step.share(self._stride(sequence), sequence.num_computed)
                step.take(self._slice(sequence, share))

    def _room_beside(self, answers: Sequence[Slice], cost: StepCost | None) -> StepRoom | None:
        if not answers or cost is None or self.limits.step_goal_s <= 0.0:
            return None
        return StepRoom(cost, self.limits.step_goal_s, len(answers), sum(part.start for part in answers))

    def _advance(self, sequence: TokenSequence, num_tokens: int, step: _Step) -> None:
        """Compute its next positions, if it finds the blocks for them."""
        if num_tokens and sequence.blocks and self._grow(sequence, num_tokens, step.fresh):
            self._take_up(sequence, step.fresh)
            step.take(self._slice(sequence, num_tokens))

    def _admit(self, sequence: TokenSequence, fresh: list[int]) -> bool:
        if len(self.running) >= self.limits.max_running:
            return False
        size = self.prefixes.block_tokens
        num_tokens = sequence.num_tokens
        found = self.prefixes.look(sequence, num_tokens - 1)  # the last one's logits are needed
        missing = min(self._blocks_for(sequence) - found.num, self._room_for(sequence))
        reserve = len(self.running)  # one more block for each sequence that decodes, or they would preempt at once
        if self.claim is not None and self.claim.tier.rank < self.waiting.first_rank:
            reserve += self.claim.num_blocks
        if missing + reserve > self.pool.num_available - found.idle:
            return False
        if self.prefixes.host is not None and self.pool.num_uncopied(missing, found):
            self.num_awaited = missing + found.spare
            return False
        held = self.prefixes.hold(sequence, num_tokens - 1)
        taken = self.pool.allocate(missing)
        assert taken is not None
        sequence.blocks = held + taken
        sequence.num_computed = len(held) * size
        sequence.cached_tokens = sequence.num_computed
        sequence.recall = self._recall(sequence, len(held), min((num_tokens - 1) // size, len(held) + len(taken)))
        if sequence.recall is None and num_tokens % size:
            fresh.append(taken[-1])
        self.waiting.take()
        self.running.append(sequence)
        return True

    def _recall(self, sequence: TokenSequence, start: int, end: int) -> Recall | None:
        hold = self.prefixes.hold_on_host(sequence, start, end, sequence.deadline)
        return None if hold is None else Recall(hold, start)

    def _take_up(self, sequence: TokenSequence, fresh: list[int]) -> None:
        """From now on the rest is computed of what came back."""
        if sequence.recall is not None and sequence.num_tokens % self.prefixes.block_tokens:
            fresh.append(sequence.blocks[-1])
        sequence.recall = None

    def _make_way(self) -> None:
        """Preempt flex answers, while no step computes them, for what is urgent and finds no room otherwise."""
        victims: list[TokenSequence] = []
        if self.claim is not None and self.claim.tier.is_urgent:
            victims += self._yielding(self.claim.num_blocks - self.pool.num_available, 0)
        if self.waiting and self.waiting.first.request.tier.is_urgent and not victims:
            missing = self._room_for(self.waiting.first) + len(self.running) - self.pool.num_available
            victims += self._yielding(missing, len(self.running) + 1 - self.limits.max_running)
        for victim in victims:
            self._preempt(victim, for_tier=True)

    def _yielding(self, num_blocks: int, num_places: int) -> list[TokenSequence]:
        return make_way(self.running, self.pool.num_holders, num_blocks, num_places)

    def _blocks_for(self, sequence: TokenSequence) -> int:
        return -(-sequence.num_tokens // self.prefixes.block_tokens)

    def _room_for(self, sequence: TokenSequence) -> int:
        """Blocks that it takes at admission at most."""
        blocks = self._blocks_for(sequence)
        if not self._lets_go(sequence):
            return blocks
        in_sight = self.limits.sight_tokens + self.limits.max_step_tokens
        return min(blocks, -(-in_sight // self.prefixes.block_tokens) + 1)

    def _stride(self, sequence: TokenSequence) -> int:
        """Positions that a prompt would like to compute next."""
        pending, last = sequence.num_pending, self.limits.last_stride
        return pending // 2 if last and sequence.purpose is Purpose.EXPORT and pending >= 2 * last else pending

    def _grow(self, sequence: TokenSequence, num_tokens: int, fresh: list[int]) -> bool:
        """Make sure that the next positions have blocks; false when the sequence had to give way itself."""
        end = sequence.num_computed + num_tokens
        missing = -(-end // self.prefixes.block_tokens) - len(sequence.blocks)
        if missing <= 0:
            return True
        while (taken := self.pool.allocate(missing)) is None:
            victim = last_to_stay(self.running)
            if victim is None:
                return False
            self._preempt(victim, for_tier=victim.rank > sequence.rank)
            if victim is sequence:
                return False
        sequence.blocks += taken
        fresh += taken
        return True

    def _lets_go(self, sequence: TokenSequence) -> bool:
        return bool(self.limits.sight_tokens) and sequence.purpose is Purpose.ANSWER

    def _preempt(self, sequence: TokenSequence, *, for_tier: bool) -> None:
        self.num_preemptions += 1
        sequence.num_yields += for_tier
        if sequence.found_tokens is None and sequence.num_computed > sequence.cached_tokens:
            sequence.found_tokens = sequence.cached_tokens
        self.running.remove(sequence)
        self._release(sequence)
        sequence.num_computed = sequence.num_published = 0
        self.waiting.put_back(sequence, sequence.rank)

    def _release(self, sequence: TokenSequence) -> None:
        if sequence.recall is not None and self.prefixes.host is not None:
            self.prefixes.host.release(sequence.recall.hold)
        sequence.recall = None
        self.pool.release(sequence.held_blocks)
        sequence.blocks = []
        sequence.num_let_go = 0

    def _guesses(self, decoding: Sequence[TokenSequence], room: int) -> list[Slice]:
        guesses: list[Slice] = []
        for sequence in decoding:
            if room > len(guesses) and sequence.in_flight:
                start = sequence.num_computed + 1
                reach = len(sequence.blocks) * self.prefixes.block_tokens - start
                draft = sequence.draft(min(room - len(guesses), reach))
                guesses += [_guess(sequence, draft[: count + 1], start + count) for count in range(len(draft))]
        return guesses

    def _slice(self, sequence: TokenSequence, num_tokens: int) -> Slice:
        start = sequence.num_computed
        end = start + num_tokens
        sequence.in_flight = True
        return Slice(
            request=sequence.request,
            token_ids=sequence.tokens(start, end),
            start=start,
            block_table=sequence.blocks,
            sample_index=len(sequence.output) if end == sequence.num_tokens else None,
            emitted=sequence.output,
        )


def _guess(sequence: TokenSequence, draft: list[int], position: int) -> Slice:
    """The last token of a draft, as if the others had been drawn."""
    return Slice(
        request=sequence.request,
        token_ids=draft[-1:],
        start=position,
        block_table=sequence.blocks,
        sample_index=len(sequence.output) + len(draft),
        emitted=[*sequence.output, *draft],
        is_guess=True,
    )
