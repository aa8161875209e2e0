"""AWQ in the layout of its "gemm" kernels: integers of 4 bits packed along the outputs.

    qweight = [in, out / 8]     int32
    qzeros  = [groups, out / 8] int32
    scales  = [groups, out]

Of eight outputs, a word holds the even ones and then the odd ones, from its lowest bits on. A weight is
``(element - zero) * scale``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twinfer.model.fields import Fields
from twinfer.model.quantised.fields import choice, group_size
from twinfer.model.quantised.scheme import NUMBERS, Layout, Piece, Slab
from twinfer.model.quantised.words import ceil_div, unpack, words_for

if TYPE_CHECKING:
    from torch import Tensor

_BITS = 4
_PER_WORD = 8
_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]
"""Of each of eight outputs in their word."""


@dataclass(frozen=True, slots=True)
class Awq:
    """Its parameters: inputs that share a scale, 0 for all."""

    group: int

    @property
    def unit(self) -> int:
        """Outputs in a word."""
        return _PER_WORD

    def pieces(self, outputs: int, inputs: int) -> tuple[Piece, ...]:
        """See ``Scheme``."""
        groups, words = ceil_div(inputs, self.group or inputs), words_for(outputs, _BITS)
        return (
            Piece("qweight", (Layout(("I32",), (inputs, words), 1, _PER_WORD),)),
            Piece("qzeros", (Layout(("I32",), (groups, words), 1, _PER_WORD),)),
            Piece("scales", (Layout(NUMBERS, (groups, outputs), 1),)),
        )

    def rows(self, slab: Slab) -> "Tensor":
        """See ``Scheme``."""
        elements, zeros = (_columns(slab.tensors[name])[:, : slab.outputs] for name in ("qweight", "qzeros"))
        group = self.group or slab.inputs
        wide = [each.repeat_interleave(group, 0)[: slab.inputs] for each in (zeros, slab.tensors["scales"].float())]
        return ((elements - wide[0]).float() * wide[1]).T


def read_awq(fields: Fields) -> Awq:
    """From a ``quantization_config``."""
    choice(fields, "bits", (_BITS,))
    for name in ("version", "checkpoint_format"):
        choice(fields, name, ("gemm", "GEMM"), "gemm")
    choice(fields, "zero_point", (True,), True)
    return Awq(group_size(fields, "group_size", 128))


def _columns(words: "Tensor") -> "Tensor":
    unpacked = unpack(words, _BITS)
    return unpacked.view(len(words), -1, _PER_WORD)[..., _PLACES].flatten(-2)
