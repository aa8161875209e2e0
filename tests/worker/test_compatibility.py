"""Which KV a worker takes: the whitelist, and a reason for everything outside it."""

import msgspec
import pytest

from tests.fakes import MODEL, POOL
from twinfer.core.capabilities import Capabilities
from twinfer.core.ids import ModelId
from twinfer.engine.assemble import emulated_capabilities
from twinfer.worker.compatibility import ConversionPlan, negotiate

SINK = emulated_capabilities(MODEL, POOL)


def a_source(**changes: object) -> Capabilities:
    """SINK, but for these fields of its pool, layout or fingerprint, or its own."""
    layout = {name: value for name, value in changes.items() if name in SINK.layout.__struct_fields__}
    fingerprint = {name: value for name, value in changes.items() if name in SINK.fingerprint.__struct_fields__}
    own = {name: value for name, value in changes.items() if name in SINK.__struct_fields__}
    return msgspec.structs.replace(
        SINK,
        layout=msgspec.structs.replace(SINK.layout, **layout),
        fingerprint=msgspec.structs.replace(SINK.fingerprint, **fingerprint),
        **own,
    )


def test_the_same_is_taken_as_it_is() -> None:
    """No conversion, no foreign numbers."""
    assert ConversionPlan(SINK.layout, SINK.layout, "emulated/fp32", foreign=False) == negotiate(SINK, SINK, ())
    assert not ConversionPlan(SINK.layout, SINK.layout, "emulated/fp32", foreign=False).converts


@pytest.mark.parametrize("block_tokens", [1, 3, 64])
def test_block_sizes_may_differ(block_tokens: int) -> None:
    """A re-blocked prompt holds the same numbers: nobody has to accept anything."""
    plan = negotiate(a_source(block_tokens=block_tokens), SINK, ())
    assert isinstance(plan, ConversionPlan)
    assert (plan.converts, plan.foreign, plan.source.block_tokens) == (True, False, block_tokens)


@pytest.mark.parametrize("accept", [("emulated/bf16",), ("*",), ("other", "emulated/bf16")])
def test_other_numbers_are_taken_where_they_are_accepted(accept: tuple[str, ...]) -> None:
    """By name, or any; they are foreign all the same."""
    plan = negotiate(a_source(dtype="bf16", provenance="emulated/bf16"), SINK, accept)
    assert isinstance(plan, ConversionPlan)
    assert (plan.converts, plan.foreign, plan.provenance) == (True, True, "emulated/bf16")
    same_layout = negotiate(a_source(provenance="emulated/bf16"), SINK, accept)
    assert isinstance(same_layout, ConversionPlan)
    assert (same_layout.converts, same_layout.foreign) == (False, True)


@pytest.mark.parametrize(
    ("changes", "accept", "words"),
    [
        ({"model": ModelId("other")}, ("*",), "another model"),
        ({"weights": "others"}, ("*",), "weights differs"),
        ({"tokenizer": "others"}, ("*",), "tokenizer differs"),
        ({"rope": "interleaved"}, ("*",), "rope differs"),
        ({"head_dim": 16}, ("*",), "head_dim differs"),
        ({"num_layers": 2}, ("*",), "num_layers differs"),
        ({"num_kv_heads": 2}, ("*",), "num_kv_heads differs"),
        ({"packing": "amx"}, ("*",), "packing differs"),
        ({"block_tokens": 0}, ("*",), "another KV shape"),
        ({"dtype": "bf16", "provenance": "emulated/bf16"}, (), "numeric provenance emulated/bf16"),
        ({"dtype": "bf16", "provenance": "emulated/bf16"}, ("emulated/fp16",), "numeric provenance"),
        ({"provenance": "int8/fp32"}, (), "numeric provenance int8/fp32"),
        ({"dtype": "bf16"}, (), "numeric provenance"),
    ],
)
def test_everything_else_is_refused_in_words(changes: dict[str, object], accept: tuple[str, ...], words: str) -> None:
    """A model that is almost the same gives wrong text; so do numbers that merely look alike."""
    plan = negotiate(a_source(**changes), SINK, accept)
    assert isinstance(plan, str)
    assert words in plan


def test_a_layout_that_belies_its_fingerprint_is_refused() -> None:
    """Equal fingerprints do not help where the blocks have other heads."""
    layout = msgspec.structs.replace(SINK.layout, num_kv_heads=2)
    plan = negotiate(msgspec.structs.replace(SINK, layout=layout), SINK, ("*",))
    assert isinstance(plan, str)
    assert "another KV shape" in plan


def test_packed_blocks_are_for_their_like() -> None:
    """Equal packing and equal blocks pass; with other blocks or types nobody could take them apart."""
    packed = a_source(packing="cpu amx")
    same = negotiate(packed, packed, ())
    assert isinstance(same, ConversionPlan)
    for layout in ({"block_tokens": 8}, {"dtype": "bf16"}):
        other = msgspec.structs.replace(packed, layout=msgspec.structs.replace(packed.layout, **layout))
        refused = negotiate(other, packed, ("*",))
        assert isinstance(refused, str)
        assert "cannot be converted" in refused
