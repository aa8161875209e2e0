"""Whether one worker's KV can be read by another, and how; decided before anything is computed or moved.

1. The model must be the same in every respect that its fingerprint names, and the layouts must agree with it.
2. Tokens per block and element type may differ: the sink converts what arrives. A kernel's own packing is read by an
   equal layout only.
3. The KV must come from the sink's own weight format and KV dtype, or from one that its pool accepts.

Whatever else differs is refused.
"""

from collections.abc import Collection
from dataclasses import dataclass

from twinfer.core.capabilities import Capabilities
from twinfer.core.layout import KVLayout


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """How a source's KV becomes the sink's.

    Attributes:
        source: layout of what travels.
        sink: layout of the pool it ends in.
        provenance: numeric provenance of the source.
        foreign: whether that is another than the sink's own.
    """

    source: KVLayout
    sink: KVLayout
    provenance: str
    foreign: bool

    @property
    def converts(self) -> bool:
        """Whether the bytes change on arrival."""
        return self.source != self.sink


def negotiate(source: Capabilities, sink: Capabilities, accept: Collection[str]) -> ConversionPlan | str:
    """How the sink takes the source's KV, or why it cannot, in words.

    Args:
        source: what the source offers.
        sink: what the sink runs.
        accept: numeric provenances the sink's pool takes besides its own; ``*`` takes any.
    """
    if source.model != sink.model:
        return f"another model: {source.model} there, {sink.model} here"
    difference = sink.fingerprint.difference(source.fingerprint)
    if difference is not None:
        return difference
    if _shape(source.layout) != _shape(sink.layout) or source.layout.block_tokens < 1:
        return f"another KV shape: {source.layout} there, {sink.layout} here"
    if sink.fingerprint.packing and source.layout != sink.layout:
        packing = sink.fingerprint.packing
        return f"blocks packed as {packing} cannot be converted: {source.layout} there, {sink.layout} here"
    foreign = source.provenance != sink.provenance or source.layout.dtype != sink.layout.dtype
    if foreign and not accepts(accept, source.provenance):
        return (
            f"numeric provenance {source.provenance} there, {sink.provenance} here; "
            f"add it to the pool's accept if that is meant"
        )
    return ConversionPlan(source.layout, sink.layout, source.provenance, foreign)


def accepts(accept: Collection[str], provenance: str) -> bool:
    """Whether a pool that accepts these takes KV of another provenance."""
    return provenance in accept or "*" in accept


def _shape(layout: KVLayout) -> tuple[int, int, int]:
    return (layout.num_layers, layout.num_kv_heads, layout.head_dim)
