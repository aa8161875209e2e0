"""What work costs where: a worker's step times, a link's transfers, and what a router predicts of one request."""

import msgspec

from twinfer.core.ids import WorkerId
from twinfer.core.service import NUM_RANKS


class StepCost(msgspec.Struct, frozen=True):
    """The time of a worker's steps, from what is in them; all in seconds.

        decode = fixed + row * decoding sequences + context * positions that these look back to
        prompt = token * prompt positions + pair * prompt positions times those before each
        step = pace * (decode + max(0, prompt - hides * decode))

    Where weights and KV are read while prompts are multiplied, the longer of the two counts; where one waits for the
    other, their sum.

    Args:
        pace: how much slower than that the latest steps were; 1 when they were as it says.
        chunk_tokens: positions in one step at most.
        hides: share of a decode step in which a prompt's computation goes on for nothing; 0 where parts add up.
    """

    fixed_s: float
    token_s: float
    pair_s: float
    row_s: float
    context_s: float
    pace: float = 1.0
    chunk_tokens: int = 512
    hides: float = 0.0

    def decode_s(self, rows: float, context: float) -> float:
        """A step that only decodes, before the pace."""
        return self.fixed_s + self.row_s * rows + self.context_s * context

    def prefill_s(self, work: "Backlog") -> float:
        """What prompts take to compute, before the pace."""
        return self.token_s * work.tokens + self.pair_s * work.pairs

    def added_s(self, work: "Backlog", decode_s: float) -> float:
        """What prompts add to steps that would take so long without, as full as may be; before the pace."""
        return self.shown_s(work.tokens, self.prefill_s(work), decode_s)

    def shown_s(self, tokens: int, computing_s: float, decode_s: float) -> float:
        """The same for so many prompt positions that take so long to compute."""
        hidden = self.hides * decode_s
        if not hidden or not tokens:
            return computing_s
        if tokens <= self.chunk_tokens:
            return computing_s - hidden if computing_s > hidden else 0.0
        steps = tokens // self.chunk_tokens
        full = computing_s * self.chunk_tokens / tokens
        rest = computing_s - steps * full
        return steps * max(0.0, full - hidden) + max(0.0, rest - hidden)


class LinkCost(msgspec.Struct, frozen=True):
    """The time of a transfer, in seconds: ``pace * (fixed + byte * bytes)``.

    Args:
        transfers: how many it was learned from; a change says that it is in use.
    """

    fixed_s: float
    byte_s: float
    pace: float = 1.0
    transfers: int = 0


class Backlog(msgspec.Struct, frozen=True):
    """Prompt positions to be computed, and for each the positions before it, summed."""

    tokens: int = 0
    pairs: float = 0.0

    def __add__(self, other: "Backlog") -> "Backlog":
        return Backlog(self.tokens + other.tokens, self.pairs + other.pairs)


NO_WORK = Backlog()


def prompt_work(start: int, end: int) -> Backlog:
    """The positions ``[start, end)`` of a prompt."""
    tokens = end - start
    return Backlog(tokens, tokens * (start + tokens / 2))


class Ahead:
    """Prompts by service tier, so that those before a new one are known at once.

    Attributes:
        before: by the rank of the new one; the last are all.
    """

    def __init__(self) -> None:
        self.before = [NO_WORK] * NUM_RANKS

    def add(self, work: Backlog, rank: int) -> None:
        """One more, of this rank."""
        for other in range(rank, NUM_RANKS):
            self.before[other] += work


class Estimate(msgspec.Struct, frozen=True):
    """What a router predicts of a request on one choice of workers.

    Args:
        decode, prefill: the workers; ``prefill`` is ``None`` when aggregated.
        ttft_s: time to the first token.
        tpot_s: time per token after it.
        burden: how many other requests it makes late, of those that are there and those to come.
        cost: late requests in all, with a little for what is kept; the lowest is best.
        holds: within both objectives.
    """

    decode: WorkerId
    prefill: WorkerId | None
    ttft_s: float
    tpot_s: float
    burden: float
    cost: float
    holds: bool
