"""Shapes come from published configurations; what cannot be counted is refused rather than counted wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from twinfer.core.errors import ConfigError
from twinfer.devices.model_config import SHAPES, load_shape, shape_names, shape_of

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 100,
}


def test_the_default_is_gpt_oss() -> None:
    """Served in the precision it is published in."""
    assert ("gpt-oss-120b", "mxfp4", 36, 18) == (
        load_shape().name,
        load_shape().native,
        load_shape().num_layers,
        load_shape().windowed_layers,
    )


def test_a_file_or_a_folder_will_do(tmp_path: Path) -> None:
    """A path to a config.json reads like a shipped shape, under the name of its folder."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_bytes((SHAPES / "qwen3-8b.json").read_bytes())
    for path in (folder, folder / "config.json"):
        found = load_shape(str(path))
        assert ("my-model", load_shape("qwen3-8b").parameters) == (found.name, found.parameters)


def test_the_demo_model_is_a_shape_too() -> None:
    """The bundled checkpoint's own configuration, whose tensors the file lists."""
    demo = Path(__file__).parents[2] / "src" / "twinfer" / "demo"
    header = (demo / "model.safetensors").read_bytes()
    size = int.from_bytes(header[:8], "little")
    tensors = {name: t for name, t in json.loads(header[8 : 8 + size]).items() if name != "__metadata__"}
    counted = 0
    for tensor in tensors.values():
        product = 1
        for dim in tensor["shape"]:
            product *= dim
        counted += product
    assert counted == pytest.approx(load_shape(str(demo)).parameters, rel=0.01)


def test_defaults_of_old_configurations() -> None:
    """Without KV heads every head has its own; without head_dim the width is dealt out."""
    shape = shape_of(SMALL, "small")
    assert (4, 16, 4, 0) == (shape.num_kv_heads, shape.head_dim, shape.dense_layers, shape.expert_layers)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sliding_window": 32}, 4),
        ({"sliding_window": 32, "use_sliding_window": False}, 0),
        ({"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 3}, 1),
        ({"sliding_window": None}, 0),
        ({"sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"] * 2}, 2),
    ],
)
def test_windows(changes: dict[str, Any], expected: int) -> None:
    """Each family's way to say which layers have one."""
    assert expected == shape_of(SMALL | changes, "small").windowed_layers


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"first_k_dense_replace": 1}, 3),
        ({"mlp_only_layers": [0, 3]}, 2),
        ({"decoder_sparse_step": 2}, 2),
        ({}, 4),
    ],
)
def test_layers_with_experts(changes: dict[str, Any], expected: int) -> None:
    """DeepSeek begins with dense layers; Qwen lists or alternates them."""
    moe = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    shape = shape_of(SMALL | moe | changes, "small")
    assert (expected, 4 - expected) == (shape.expert_layers, shape.dense_layers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": None}, "the configuration of small lacks `vocab_size`"),
        ({"hidden_size": "64"}, "the configuration of small: `hidden_size` is '64', not a whole number"),
        ({"num_hidden_layers": -1}, "`num_hidden_layers` is -1"),
        ({"num_experts": 8}, "lacks `num_experts_per_tok`"),
        ({"layer_types": ["linear_attention"]}, "has layers of linear_attention, whose KV is not known here"),
    ],
)
def test_what_cannot_be_counted_is_refused(changes: dict[str, Any], message: str) -> None:
    """One sentence with model and key."""
    with pytest.raises(ConfigError, match=message):
        shape_of(SMALL | changes, "small")


def test_unknown_names_lead_to_near_ones(tmp_path: Path) -> None:
    """A typo is met with what there is; a broken file with its path."""
    with pytest.raises(ConfigError, match=r"no model shape 'gpt-oss', .*did you mean gpt-oss-20b or gpt-oss-120b"):
        load_shape("gpt-oss")
    broken = tmp_path / "config.json"
    broken.write_text("[1", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot read the model configuration"):
        load_shape(str(broken))
    broken.write_text("[1]", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no JSON object"):
        load_shape(str(broken))


def test_shipped_shapes_are_named_in_lower_case() -> None:
    """Names are looked up in lower case."""
    assert [] == [name for name in shape_names() if name != name.lower()]
    assert load_shape("GPT-OSS-20B").name == "gpt-oss-20b"
