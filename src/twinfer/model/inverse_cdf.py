"""From a random number to a token: the inverse of the cumulative distribution over probabilities in falling order.

The random number of a token is a function of (seed, choice, token index) alone, and all sums are in fp64 over the
token's own row, so a draw does not depend on what else is in the batch or on which worker makes it.

The most likely tokens nearly always decide. So a row is first tried with its *head*, the few best tokens; only where
that cannot tell is the whole row ordered. Both give the same token, since both take the same sums in the same order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from twinfer.core.request import Sampling

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def uniform(seed: int, choice: int, index: int) -> float:
    """The random number in [0, 1) of output token ``index``.

    The first 53 bits (from the top of a little-endian 64-bit word) of BLAKE2b over ``seed/choice/index`` in decimal.
    """
    digest = blake2b(f"{seed}/{choice}/{index}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


@dataclass(frozen=True, slots=True)
class Truncation:
    """How R rows are drawn; every field is ``[R]``. Where several bounds apply the strictest holds.

    Attributes:
        uniform: the random numbers.
        top_k: tokens kept; the vocabulary's size where switched off.
        top_p: mass kept, of what top_k keeps; 1 where switched off. The token that reaches it is kept.
        min_p: least probability kept, relative to the best; 0 where switched off.
    """

    uniform: Floats
    top_k: Ints
    top_p: Floats
    min_p: Floats

    @classmethod
    def of(cls, samplings: Sequence[Sampling], uniforms: Sequence[float], vocab_size: int) -> "Truncation":
        """Collect the requests' own."""
        top_k = [min(sampling.top_k, vocab_size) if sampling.top_k > 0 else vocab_size for sampling in samplings]
        return cls(
            uniform=np.array(uniforms),
            top_k=np.array(top_k),
            top_p=np.array([sampling.top_p for sampling in samplings]),
            min_p=np.array([sampling.min_p for sampling in samplings]),
        )

    def row(self, index: int) -> "Truncation":
        """A single row."""
        at = slice(index, index + 1)
        return Truncation(self.uniform[at], self.top_k[at], self.top_p[at], self.min_p[at])


def order(values: NDArray[np.float32], ids: Ints) -> tuple[NDArray[np.float32], Ints]:
    """Both ``[R, m]`` arrays with each row's values falling, and ids rising among equal values.

    No value may be above 0. Then the bits of its magnitude, read as an integer, rise as it falls, and one integer
    with the id below these bits is a key without equals: sorting such keys is ten times faster than sorting pairs.
    """
    keys = (np.abs(values).view(np.uint32).astype(np.uint64) << np.uint64(32)) | ids.astype(np.uint64)
    keys.sort(axis=-1)
    return -(keys >> np.uint64(32)).astype(np.uint32).view(np.float32), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def decide(logits: NDArray[np.float32], totals: Floats, how: Truncation, vocab_size: int) -> Ints:
    """The place in its row of each row's token, or -1 where these logits cannot tell.

    Args:
        logits: ``[R, m]``, the m best of each row in falling order, less the row's best: the first is 0.
        totals: ``[R]``, the sum of the exponentials of the whole row.
        how: the rows' random numbers and bounds.
        vocab_size: length of a whole row. With m below it, tokens equal to the last of the m are not relied upon:
            their order among those left out is unknown.
    """
    rows, width = np.arange(len(logits)), logits.shape[1]
    weights = np.exp(logits.astype(np.float64))
    cumulative = weights.cumsum(axis=1)
    reliable = np.full(len(logits), width) if width == vocab_size else (logits > logits[:, -1:]).sum(1)

    mass = np.where(how.top_k == vocab_size, totals, cumulative[rows, np.minimum(how.top_k, width) - 1])
    known = (how.top_k == vocab_size) | (how.top_k <= reliable)
    in_nucleus = np.where(how.top_p < 1.0, (cumulative < (how.top_p * mass)[:, None]).sum(1) + 1, vocab_size)
    above_floor = np.where(how.min_p > 0.0, (weights >= how.min_p[:, None]).sum(1), vocab_size)
    kept = np.minimum(np.minimum(how.top_k, in_nucleus), above_floor)
    known &= (kept == vocab_size) | (kept <= reliable)

    mass = np.where(kept == vocab_size, totals, cumulative[rows, np.minimum(kept, width) - 1])
    possible = np.minimum(kept, (weights > 0).sum(1))
    place = np.minimum((cumulative <= (how.uniform * mass)[:, None]).sum(1), possible - 1)
    return np.where(known & (place < reliable), place, -1)
