"""A request inside one engine: its tokens, its blocks, and how far it is computed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from twinfer.core.block_hash import BlockHash, BlockHasher
from twinfer.core.request import GenerationRequest
from twinfer.core.step import Slice
from twinfer.core.tokens import FinishReason, Timings
from twinfer.engine.lookup import PromptLookup
from twinfer.kv.host_tier import HostHold


class Purpose(Enum):
    """What becomes of a sequence once its prompt is computed."""

    ANSWER = auto()
    """It decodes on, here."""
    EXPORT = auto()
    """Its KV is held for another worker; it draws its first token and stops."""


@dataclass(slots=True)
class Recall:
    """Blocks of a sequence that come back from the host tier.

    Attributes:
        hold: where they are.
        first_block: index of the first of them within the sequence.
        num_back: so many are back and verified.
        is_over: no more of them will come.
    """

    hold: HostHold
    first_block: int
    num_back: int = 0
    is_over: bool = False


@dataclass(slots=True, eq=False)
class TokenSequence:
    """Mutable state of one request; owned by the engine loop.

    Attributes:
        output: tokens drawn so far, here or by an earlier attempt; append-only while in flight.
        blocks: pool block of every ``block_tokens`` positions; append-only while in flight.
        num_let_go: the first so many of ``blocks`` are not its own any more; no position looks back to them.
        num_computed: positions ``[0, num_computed)`` are in the blocks.
        hashes: of full blocks by the chain's provenance, as far as they were needed.
        num_published: full blocks entered into the prefix cache.
        foreign: another numeric provenance whose KV may stand for its prefix; empty for none.
        mixed: its blocks hold such KV.
        num_yields: how often it gave up its blocks.
        cached_tokens: found, and not computed, when it was admitted last.
        found_tokens: the same when it was admitted first, once it gave way: what it finds later may be its own.
        pinned_tokens: of the prompt, by the request's pins; ``None`` until it is computed.
        recall: what comes back from the host tier before anything is computed.
        lookup: drafts what may come next; made when there is room for drafts.
    """

    request: GenerationRequest
    purpose: Purpose
    arrived: float
    output: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    num_let_go: int = 0
    num_computed: int = 0
    hashes: dict[str, list[BlockHash]] = field(default_factory=dict)
    num_published: int = 0
    foreign: str = ""
    mixed: bool = False
    recall: Recall | None = None
    lookup: PromptLookup | None = None
    num_yields: int = 0
    cached_tokens: int = 0
    found_tokens: int | None = None
    pinned_tokens: int | None = None
    first_scheduled: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    in_flight: bool = False
    cancelled: bool = False

    @property
    def held_blocks(self) -> list[int]:
        """Blocks that it has a hold on."""
        return self.blocks[self.num_let_go :]

    @property
    def num_tokens(self) -> int:
        """Prompt and output so far."""
        return len(self.request.prompt) + len(self.output)

    @property
    def num_pending(self) -> int:
        """Known positions not computed yet; one in plain decoding."""
        return self.num_tokens - self.num_computed

    def draft(self, room: int) -> list[int]:
        """At most so many tokens that may come next, as far as the answer may still grow; often none."""
        room = min(room, self.request.stopping.max_tokens - len(self.output) - 1)
        if room < 1:
            return []
        if self.lookup is None:
            self.lookup = PromptLookup(self.request.prompt)
        return self.lookup.draft(self.output, room)

    @property
    def rank(self) -> int:
        """Of its service tier; lower ones come first."""
        return self.request.tier.rank

    @property
    def deadline(self) -> float:
        """When the request's own time is over."""
        return self.arrived + self.request.deadline_s

    def tokens(self, start: int, end: int) -> Sequence[int]:
        """The tokens at positions ``[start, end)``, of prompt and output alike."""
        prompt = self.request.prompt
        if start >= len(prompt):
            return self.output[start - len(prompt) : end - len(prompt)]
        return prompt[start:end] if end <= len(prompt) else [*prompt[start:], *self.output[: end - len(prompt)]]

    def block_hashes(self, num_blocks: int, hasher: BlockHasher) -> list[BlockHash]:
        """Hashes of the first ``num_blocks`` blocks, all of them full; kept for the next call."""
        size, hashes = hasher.block_tokens, self.hashes.setdefault(hasher.provenance, [])
        while len(hashes) < num_blocks:
            start = len(hashes) * size
            parent = hashes[-1] if hashes else hasher.root(self.request.tenant, self.request.cache_salt)
            hashes.append(hasher.extend(parent, self.tokens(start, start + size)))
        return hashes[:num_blocks]

    def expects(self, part: Slice) -> bool:
        """Whether a slice is what comes next: a guess is only if the token before it was drawn as it was guessed."""
        start = part.start
        return start == self.num_computed and part.token_ids[0] == self.tokens(start, start + 1)[0]

    def finish_reason(self, max_context_tokens: int) -> FinishReason | None:
        """Why the last token ends the answer, if it does."""
        stopping = self.request.stopping
        if self.output[-1] in stopping.stop_token_ids and len(self.output) > stopping.min_tokens:
            return FinishReason.STOP
        if len(self.output) >= stopping.max_tokens:
            return FinishReason.LENGTH
        if self.num_tokens >= max_context_tokens:
            return FinishReason.CONTEXT
        return None

    def timings(self, block_tokens: int) -> Timings:
        """Where the time went so far."""
        scheduled = self.first_scheduled if self.first_scheduled is not None else self.arrived
        first = self.first_token if self.first_token is not None else scheduled
        last = self.last_token if self.last_token is not None else first
        at_first, at_end = -(-len(self.request.prompt) // block_tokens), -(-self.num_tokens // block_tokens)
        return Timings(
            queue_s=scheduled - self.arrived,
            prefill_s=first - scheduled,
            decode_s=last - first,
            cached_tokens=self.cached_tokens if self.found_tokens is None else self.found_tokens,
            pinned_tokens=self.pinned_tokens or 0,
            kv_block_s=at_first * (first - scheduled) + (at_first + at_end) / 2 * (last - first),
        )
