"""The checkpoint's tensors of a part, as the decoder wants them, piece by piece so that no more is ever in memory."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from twinfer.model import mxfp4
from twinfer.model.part import Part

_PIECE_ELEMENTS = 1024 * 1024


def pieces(part: Part, sources: Iterable[Tensor]) -> Iterator[Tensor]:
    """All elements of a part in order, in pieces of any shape; where experts are converted, one at a time. A stacked
    part's sources may be cut into more."""
    if part.form == "stacked" and not part.interleaved:
        for source in sources:
            yield from torch.split(source.flatten(), _PIECE_ELEMENTS)
        return
    for expert in zip(*sources, strict=True):
        if part.form == "mxfp4":
            rows = mxfp4.decode(*expert)
        else:
            rows = expert[0].T if part.form == "transposed" else expert[0]
        yield (torch.cat((rows[0::2], rows[1::2])) if part.interleaved else rows).flatten()
