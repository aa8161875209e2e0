from dataclasses import replace
from typing import Any

import pytest

from twinfer.core.errors import CheckpointError
from twinfer.model.read_config import read_spec
from twinfer.model.spec import ModelSpec, RopeSpec

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def of_family(family: str, **changes: Any) -> dict[str, Any]:
    """The same configuration in another family's name."""
    names = {"mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
    return LLAMA | {"model_type": family, "architectures": [names[family]]} | changes


def test_llama() -> None:
    """Every field of a plain Llama configuration arrives."""
    expected = ModelSpec(
        family="llama",
        vocab_size=100,
        hidden_size=64,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        intermediate_size=96,
        rms_norm_eps=1e-5,
        rope=RopeSpec(500000.0),
        windows=(0, 0, 0, 0),
        qkv_bias=False,
        out_bias=False,
        qk_norm=False,
        tied_embeddings=False,
        max_positions=512,
        eos_ids=(2,),
        dtype="bf16",
    )
    assert expected == read_spec(LLAMA)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (LLAMA | {"attention_bias": True}, {"qkv_bias": True, "out_bias": True}),
        (LLAMA | {"num_key_value_heads": None}, {"num_kv_heads": 4}),
        (LLAMA | {"head_dim": 32, "tie_word_embeddings": True}, {"head_dim": 32, "tied_embeddings": True}),
        (LLAMA | {"torch_dtype": None}, {"dtype": "fp32"}),
        (LLAMA | {"dtype": "float16"}, {"dtype": "fp16"}),
        (LLAMA | {"architectures": None}, {}),
        (of_family("mistral"), {"family": "mistral", "windows": (4096,) * 4}),
        (of_family("mistral", sliding_window=None), {"family": "mistral"}),
        (of_family("mistral", sliding_window=8), {"family": "mistral", "windows": (8,) * 4}),
        (of_family("qwen2", sliding_window=8), {"family": "qwen2", "qkv_bias": True}),
        (
            of_family("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=3),
            {"family": "qwen2", "qkv_bias": True, "windows": (0, 0, 0, 8)},
        ),
        (of_family("qwen3"), {"family": "qwen3", "qk_norm": True, "head_dim": 128}),
        (
            of_family(
                "qwen3",
                attention_bias=True,
                head_dim=16,
                use_sliding_window=True,
                sliding_window=8,
                layer_types=["sliding_attention", "full_attention"] * 2,
            ),
            {"family": "qwen3", "qk_norm": True, "qkv_bias": True, "out_bias": True, "windows": (8, 0, 8, 0)},
        ),
    ],
)
def test_families(config: dict[str, Any], changes: dict[str, Any]) -> None:
    """What families and options change, and nothing else."""
    assert replace(read_spec(LLAMA), **changes) == read_spec(config)


@pytest.mark.parametrize(
    ("changes", "rope"),
    [
        ({}, RopeSpec(500000.0)),
        ({"rope_theta": None}, RopeSpec(10000.0)),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, RopeSpec(7.0)),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, RopeSpec(500000.0, "linear", factor=2.0)),
        ({"rope_scaling": LLAMA3_ROPE}, RopeSpec(500000.0, "llama3", 8.0, 1.0, 4.0, 64)),
        ({"rope_parameters": LLAMA3_ROPE | {"rope_theta": 7.0}}, RopeSpec(7.0, "llama3", 8.0, 1.0, 4.0, 64)),
    ],
)
def test_rope(changes: dict[str, Any], rope: RopeSpec) -> None:
    """The old and the new way to write rope parameters mean the same."""
    assert rope == read_spec(LLAMA | changes).rope


def test_rope_in_words() -> None:
    """Ropes that turn differently read differently."""
    ropes = [
        RopeSpec(10000.0),
        RopeSpec(500000.0),
        RopeSpec(10000.0, "linear", 2.0),
        RopeSpec(10000.0, "linear", 4.0),
        RopeSpec(10000.0, "llama3", 4.0, 1.0, 4.0, 64),
        RopeSpec(10000.0, "llama3", 4.0, 1.0, 4.0, 128),
        RopeSpec(10000.0, "llama3", 4.0, 1.0, 2.0, 64),
    ]
    assert len(ropes) == len({rope.in_words() for rope in ropes})
    assert ropes[2].in_words() == "rotate halves, theta 10000, linear by 2"


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [(None, None, ()), (2, None, (2,)), (2, [5, 2], (5, 2)), ([3, 4], 5, (5, 3, 4))],
)
def test_eos_ids(config: object, generation: object, expected: tuple[int, ...]) -> None:
    """Both files count, as a number or a list."""
    assert expected == read_spec(LLAMA | {"eos_token_id": config}, {"eos_token_id": generation}).eos_ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "config.json: model_type 'gpt2' is not supported, only llama, mistral, qwen2, qwen3"),
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "config.json: architectures ['LlamaForSequenceClassification'] is not supported, only ['LlamaForCausalLM']",
        ),
        (
            {"quantization_config": {"quant_method": "awq"}},
            "config.json: quantization_config is not supported, only weights in float32, bfloat16 or float16",
        ),
        ({"hidden_act": "gelu"}, "config.json: hidden_act 'gelu' is not supported, only 'silu'"),
        ({"mlp_bias": True}, "config.json: mlp_bias true is not supported, only false"),
        ({"hidden_size": None}, "config.json: hidden_size is missing"),
        ({"hidden_size": "64"}, "config.json: hidden_size must be an integer of at least 1, not '64'"),
        ({"num_hidden_layers": True}, "config.json: num_hidden_layers must be an integer of at least 1, not True"),
        ({"rms_norm_eps": 0}, "config.json: rms_norm_eps must be a positive number, not 0"),
        ({"attention_bias": 1}, "config.json: attention_bias must be true or false, not 1"),
        ({"hidden_size": 66}, "config.json: num_attention_heads 4 does not divide hidden_size 66"),
        ({"num_key_value_heads": 3}, "config.json: num_key_value_heads 3 does not divide num_attention_heads 4"),
        ({"head_dim": 15}, "config.json: head_dim 15 is odd, but the rotary embedding needs two halves"),
        ({"torch_dtype": "float8"}, "config.json: dtype 'float8' is not supported, only float32, bfloat16, float16"),
        ({"eos_token_id": 100}, "eos_token_id 100 is no token id below vocab_size 100"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
            "config.json: rope_scaling.rope_type 'yarn' is not supported, only 'default', 'linear' and 'llama3'",
        ),
        ({"rope_scaling": {"type": "linear"}}, "config.json: rope_scaling: factor is missing"),
        ({"rope_scaling": [1]}, "config.json: rope_scaling must be an object, not [1]"),
        ({"partial_rotary_factor": 0.5}, "config.json: partial_rotary_factor is not supported, only 1"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    """One sentence names the field and what is supported."""
    with pytest.raises(CheckpointError) as raised:
        read_spec(LLAMA | changes)
    assert message == str(raised.value)


def test_layer_types_refused() -> None:
    """Every layer needs a kind that is known."""
    config = of_family("qwen2", use_sliding_window=True, layer_types=["full_attention"] * 3)
    with pytest.raises(CheckpointError, match="layer_types must name 'full_attention' or 'sliding_attention' for each"):
        read_spec(config)
