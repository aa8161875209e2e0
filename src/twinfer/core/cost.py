"""What work costs where: a worker's step times, a link's transfers, and what a router predicts of one request."""

import msgspec

from twinfer.core.ids import WorkerId
from twinfer.core.service import NUM_RANKS


class StepCost(msgspec.Struct, frozen=True):
    """The time of a worker's steps, as a line over what is in them; all in seconds.

        step = pace * (fixed + token * prompt positions + pair * prompt positions times those before each
                       + row * decoding sequences + context * positions that these look back to)

    Args:
        pace: how much slower than the line the latest steps were; 1 when they were as it says.
        chunk_tokens: positions in one step at most.
    """

    fixed_s: float
    token_s: float
    pair_s: float
    row_s: float
    context_s: float
    pace: float = 1.0
    chunk_tokens: int = 512

    def decode_s(self, rows: float, context: float) -> float:
        """A step that only decodes, before the pace."""
        return self.fixed_s + self.row_s * rows + self.context_s * context

    def prefill_s(self, work: "Backlog") -> float:
        """What prompts add to the steps they are in, before the pace."""
        return self.token_s * work.tokens + self.pair_s * work.pairs


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
