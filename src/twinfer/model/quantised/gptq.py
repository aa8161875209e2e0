"""GPTQ: integers packed along the inputs, a scale and a zero per output and group of inputs.

    qweight = [in * bits / 32, out]     int32
    qzeros  = [groups, out * bits / 32] int32; the format "gptq" stores a zero less 1, "gptq_v2" as it is
    scales  = [groups, out]
    g_idx   = [in]                      the group of each input; consecutive ones where it is absent

A weight is ``(element - zero) * scale``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twinfer.core.errors import CheckpointError
from twinfer.model.fields import Fields
from twinfer.model.quantised.fields import choice, group_size
from twinfer.model.quantised.scheme import NUMBERS, Layout, Piece, Slab
from twinfer.model.quantised.words import WORD_BITS, ceil_div, gathered, unpack, words_for

if TYPE_CHECKING:
    from torch import Tensor

_ZERO_OFFSETS = {"gptq": 1, "gptq_v2": 0}


@dataclass(frozen=True, slots=True)
class Gptq:
    """Its parameters.

    Attributes:
        bits: of an element.
        group: inputs that share a scale; 0 for all.
        symmetric: all zeros are in the middle.
        reordered: ``g_idx`` must be there, since groups are not of consecutive inputs.
        zero_offset: to be added to stored zeros.
    """

    bits: int
    group: int
    symmetric: bool
    reordered: bool
    zero_offset: int

    @property
    def unit(self) -> int:
        """Zeros in a word."""
        return WORD_BITS // self.bits

    def pieces(self, outputs: int, inputs: int) -> tuple[Piece, ...]:
        """See ``Scheme``."""
        groups = ceil_div(inputs, self.group or inputs)
        zeros = Layout(("I32",), (groups, words_for(outputs, self.bits)), 1, self.unit)
        return (
            Piece("qweight", (Layout(("I32",), (words_for(inputs, self.bits), outputs), 1),)),
            Piece("qzeros", (zeros,)),
            Piece("scales", (Layout(NUMBERS, (groups, outputs), 1),)),
            Piece("g_idx", (Layout(("I32",), (inputs,)),), required=self.reordered),
        )

    def rows(self, slab: Slab) -> "Tensor":
        """See ``Scheme``."""
        elements = unpack(slab.tensors["qweight"].T, self.bits)[:, : slab.inputs]
        zeros, scales = (self._wide(values, slab) for values in (self._zeros(slab), slab.tensors["scales"].float()))
        return (elements - zeros).float() * scales

    def _wide(self, values: "Tensor", slab: Slab) -> "Tensor":
        """A value for each element, from ``[groups, outputs]``."""
        groups = slab.tensors.get("g_idx")
        if groups is not None:
            return gathered(values, 0, groups, f"{slab.module}.g_idx").T
        return values.repeat_interleave(self.group or slab.inputs, 0)[: slab.inputs].T

    def _zeros(self, slab: Slab) -> "Tensor":
        """``[groups, outputs]``. What is too small to be stored less 1 was stored as the largest."""
        stored = unpack(slab.tensors["qzeros"], self.bits)[:, : slab.outputs]
        if not self.symmetric:
            return (stored + self.zero_offset) & ((1 << self.bits) - 1)
        # Some writers name the one format and store zeros in the other: here both have the same meaning.
        middle = 1 << (self.bits - 1)
        if int(stored.min()) < middle - 1 or int(stored.max()) > middle:
            raise CheckpointError(
                f"tensor {slab.module}.qzeros must hold {middle - 1} or {middle} everywhere, as config.json says that "
                f"sym is true"
            )
        return stored.clamp(middle, middle)


def read_gptq(fields: Fields) -> Gptq:
    """From a ``quantization_config``."""
    file_format = choice(fields, "checkpoint_format", tuple(_ZERO_OFFSETS), "gptq")
    overrides = fields.table("dynamic")
    # A rule that begins with "-" leaves modules as they are, which their tensors show.
    if any(not rule.startswith("-") for rule in overrides.tables()):
        raise CheckpointError(f"{overrides.where} must not change modules' parameters; only one set is supported")
    if fields.flag("is_marlin_format"):
        raise CheckpointError(f"{fields.where}: is_marlin_format true is not supported, only false")
    return Gptq(
        choice(fields, "bits", (4, 8)),
        group_size(fields, "group_size", 128),
        fields.flag("sym", True),
        fields.flag("desc_act"),
        _ZERO_OFFSETS[file_format],
    )
