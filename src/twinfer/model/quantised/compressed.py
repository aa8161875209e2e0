"""compressed-tensors: integers packed along the inputs, or a matrix of int8 or fp8, with scales by strategy.

    pack-quantized   weight_packed = [out, in * bits / 32] int32: element + half of the range
    int-quantized    weight        = [out, in]             int8
    float-quantized  weight        = [out, in]             E4M3
    weight_scale                   = one per tensor, channel (output), group of inputs, or block
    weight_zero_point              = likewise; where weights are packed, packed along the outputs
    weight_g_idx                   = [in] the group of each input, where these are ordered by activation

A weight is ``(element - zero point) * scale``. ``weight_shape`` says again what ``config.json`` does.
"""

from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING

from twinfer.core.errors import CheckpointError
from twinfer.model.fields import Fields
from twinfer.model.quantised.fields import choice, group_size
from twinfer.model.quantised.fp8 import read_block
from twinfer.model.quantised.scheme import Layout, Piece, Slab
from twinfer.model.quantised.words import WORD_BITS, Cell, gathered, grid, scale_layouts, spread, unpack, words_for

if TYPE_CHECKING:
    from torch import Tensor

_PACKED, _INT, _FLOAT, _NAIVE = "pack-quantized", "int-quantized", "float-quantized", "naive-quantized"
_ELEMENTS = {_INT: "I8", _FLOAT: "F8_E4M3"}


@dataclass(frozen=True, slots=True)
class Compressed:
    """Its parameters.

    Attributes:
        file_format: one of the three above.
        bits: of an element.
        cell: shares a scale.
        symmetric: zero points may be absent.
        reordered: ``weight_g_idx`` is there.
    """

    file_format: str
    bits: int
    cell: Cell
    symmetric: bool
    reordered: bool

    @property
    def unit(self) -> int:
        """Rows of a block, or zero points in a word."""
        return lcm(self.cell[0] or 1, WORD_BITS // self.bits)

    def pieces(self, outputs: int, inputs: int) -> tuple[Piece, ...]:
        """See ``Scheme``."""
        zeros = scale_layouts(self.cell, outputs, inputs, ("I8", "F8_E4M3"))
        scales = Piece("weight_scale", scale_layouts(self.cell, outputs, inputs))
        if self.file_format != _PACKED:
            weight = Piece("weight", (Layout((_ELEMENTS[self.file_format],), (outputs, inputs), 0),))
            return weight, scales, Piece("weight_zero_point", zeros, required=not self.symmetric)
        if self.cell[0]:
            packed = words_for(outputs, self.bits), grid(self.cell, outputs, inputs)[1]
            zeros = (Layout(("I32",), packed, 0, WORD_BITS // self.bits), *zeros)
        found = (
            Piece("weight_packed", (Layout(("I32",), (outputs, words_for(inputs, self.bits)), 0),)),
            scales,
            Piece("weight_zero_point", zeros, required=not self.symmetric),
            Piece("weight_shape", (Layout(("I64", "I32"), (2,)),), required=False),
        )
        return (*found, Piece("weight_g_idx", (Layout(("I32",), (inputs,)),))) if self.reordered else found

    def rows(self, slab: Slab) -> "Tensor":
        """See ``Scheme``."""
        if self.file_format == _PACKED:
            elements = self._signed(slab.tensors["weight_packed"])[:, : slab.inputs]
        else:
            elements = slab.tensors["weight"]
        zeros = slab.tensors.get("weight_zero_point")
        numbers = elements.float()
        if zeros is not None:
            is_packed = zeros.element_size() == WORD_BITS // 8
            numbers = numbers - self._wide(self._signed(zeros.T).T[: slab.outputs] if is_packed else zeros, slab)
        return numbers * self._wide(slab.tensors["weight_scale"], slab)

    def _signed(self, words: "Tensor") -> "Tensor":
        return unpack(words, self.bits) - (1 << (self.bits - 1))

    def _wide(self, values: "Tensor", slab: Slab) -> "Tensor":
        """A value for each element."""
        if self.reordered:
            return gathered(values.float(), 1, slab.tensors["weight_g_idx"], f"{slab.module}.weight_g_idx")
        return spread(values, self.cell, slab.outputs, slab.inputs)


def read_compressed(fields: Fields) -> Compressed:
    """From a ``quantization_config``."""
    for table in (fields.table("sparsity_config"), fields.table("transform_config")):
        if table and table.get("format") != "dense":
            raise CheckpointError(f"{table.where} is not supported, only dense weights that nothing transforms")
    groups = fields.table("config_groups")
    found = {_read_group(fields, groups.table(name)) for name in groups.tables()}
    if len(found) != 1:
        raise CheckpointError(f"{groups.where} must quantise all weights alike, not in {len(found)} ways")
    return found.pop()


def _read_group(fields: Fields, group: Fields) -> Compressed:
    weights = group.table("weights")
    place = group if group.get("format") is not None else fields
    file_format = choice(place, "format", (_PACKED, _INT, _FLOAT, _NAIVE))
    kind = choice(weights, "type", ("int",) if file_format in (_PACKED, _INT) else ("int", "float"), "int")
    if file_format == _NAIVE:
        file_format = _INT if kind == "int" else _FLOAT
    if file_format == _FLOAT:
        choice(weights, "type", ("float",))
    bits = choice(weights, "num_bits", (4, 8) if file_format == _PACKED else (8,))
    # By "weight", alias "static", only the order in which weights were rounded was another.
    order = weights.get("actorder") or "weight"
    reordered = order is True or order in ("group", "dynamic")
    if order not in ("weight", "static") and (not reordered or file_format != _PACKED):
        raise CheckpointError(f"{weights.where}: actorder {order!r} is not supported in {file_format}")
    return Compressed(file_format, bits, _cell(weights), weights.flag("symmetric", True), reordered)


def _cell(weights: Fields) -> Cell:
    strategy = choice(weights, "strategy", ("tensor", "channel", "group", "block"))
    if strategy == "block":
        return read_block(weights, "block_structure")
    if strategy == "group":
        return 1, group_size(weights, "group_size")
    return (1, 0) if strategy == "channel" else (0, 0)
