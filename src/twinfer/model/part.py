"""One tensor as the decoder wants it, and the checkpoint's tensors that it is made of."""

from dataclasses import dataclass, replace
from typing import Literal

Shape = tuple[int, ...]
_MATRICES = frozenset({"qkv", "out", "gate_up", "down", "head"})
Form = Literal["stacked", "transposed", "mxfp4"]


@dataclass(frozen=True, slots=True)
class Part:
    """A served tensor.

    Attributes:
        name: it is served under.
        sources: the checkpoint's tensors and their shapes, in order.
        form: how they become one: ``stacked`` along the first dimension; for all experts at once, one source whose
            matrices are ``transposed``, or ``mxfp4``: two sources, blocks and scales.
        interleaved: rows of each expert alternate between gate and other half, and are sorted when they are prepared.
        served: its shape where it is not that of the sources stacked.
    """

    name: str
    sources: tuple[tuple[str, Shape], ...]
    form: Form = "stacked"
    interleaved: bool = False
    served: Shape = ()

    @property
    def shape(self) -> Shape:
        """Of the served tensor."""
        rest = self.sources[0][1][1:]
        return self.served or (sum(shape[0] for _, shape in self.sources), *rest)

    @property
    def is_matrix(self) -> bool:
        """Whether all rows of a batch are multiplied with it: what reading weights is mostly about."""
        return self.name.rpartition(".")[2] in _MATRICES

    def within(self, prefix: str, source_prefix: str) -> "Part":
        """The same with longer names."""
        sources = tuple((source_prefix + name, shape) for name, shape in self.sources)
        return replace(self, name=prefix + self.name, sources=sources)
