import math
from dataclasses import replace
from typing import Any

import pytest

from twinfer.core.errors import CheckpointError
from twinfer.model.families import FAMILIES
from twinfer.model.read_config import read_spec
from twinfer.model.spec import ExpertSpec, Gating, ModelSpec, RopeSpec

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
    return LLAMA | {"model_type": family, "architectures": [FAMILIES[family].architecture]} | changes


def experts(num_experts: int, per_token: int, intermediate_size: int, **others: Any) -> ExpertSpec:
    """In every layer unless others say so."""
    return ExpertSpec(num_experts, per_token, intermediate_size, **{"layers": (True,) * 4} | others)


QWEN_EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
GPT_OSS = {
    "family": "gpt_oss",
    "head_dim": 64,
    "qkv_bias": True,
    "out_bias": True,
    "sinks": True,
    "windows": (128, 0, 128, 0),
    "gating": Gating("clamped", 1.702, 7.0),
    "experts": experts(8, 4, 96, biased=True),
}
GEMMA = {
    "head_dim": 256,
    "tied_embeddings": True,
    "post_norms": True,
    "unit_offset_norms": True,
    "gating": Gating("gelu_tanh"),
    "embedding_scale": 8.0,
    "attention_scale": 1 / 16,
}


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
        (of_family("mixtral", num_local_experts=8), {"family": "mixtral", "experts": experts(8, 2, 96)}),
        (
            of_family("mixtral", num_local_experts=8, num_experts_per_tok=3, sliding_window=8),
            {"family": "mixtral", "windows": (8,) * 4, "experts": experts(8, 3, 96)},
        ),
        (
            of_family("qwen2_moe", shared_expert_intermediate_size=50, decoder_sparse_step=2, **QWEN_EXPERTS),
            {
                "family": "qwen2_moe",
                "qkv_bias": True,
                "experts": experts(6, 2, 40, layers=(False, True) * 2, normalised=False, shared_intermediate_size=50),
            },
        ),
        (
            of_family("qwen3_moe", norm_topk_prob=True, mlp_only_layers=[3], **QWEN_EXPERTS),
            {"family": "qwen3_moe", "qk_norm": True, "experts": experts(6, 2, 40, layers=(True, True, True, False))},
        ),
        (of_family("gpt_oss", num_local_experts=8, rope_scaling={"type": "default"}), GPT_OSS),
        (
            of_family(
                "gpt_oss",
                num_local_experts=8,
                intermediate_size=96,
                rope_scaling={"type": "default"},
                layer_types=["full_attention"] * 4,
                quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
            ),
            GPT_OSS | {"windows": (0,) * 4, "experts": experts(8, 4, 96, biased=True, packed=True)},
        ),
        (of_family("phi3"), {"family": "phi3"}),
        (of_family("phi3", sliding_window=8), {"family": "phi3", "windows": (8,) * 4}),
        (
            of_family("gemma2"),
            GEMMA
            | {
                "family": "gemma2",
                "windows": (4096, 0, 4096, 0),
                "attention_softcap": 50.0,
                "logit_softcap": 30.0,
            },
        ),
        (
            of_family("gemma2", attn_logit_softcapping=None, final_logit_softcapping=None, hidden_act="gelu"),
            GEMMA | {"family": "gemma2", "windows": (4096, 0, 4096, 0)},
        ),
        (
            of_family("gemma3_text", sliding_window=8, query_pre_attn_scalar=64, tie_word_embeddings=False),
            GEMMA
            | {
                "family": "gemma3_text",
                "qk_norm": True,
                "windows": (8,) * 4,
                "attention_scale": 1 / 8,
                "tied_embeddings": False,
                "local_rope": RopeSpec(10000.0),
            },
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
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, RopeSpec(500000.0)),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": 1.5, "truncate": False}},
            RopeSpec(500000.0, "yarn", 4.0, original_max_positions=512, attention_factor=1.5, truncate=False),
        ),
        (
            {"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 128, "attention_factor": 1}},
            RopeSpec(500000.0, "yarn", 4.0, original_max_positions=128),
        ),
    ],
)
def test_rope(changes: dict[str, Any], rope: RopeSpec) -> None:
    """The old and the new way to write rope parameters mean the same."""
    assert rope == read_spec(LLAMA | changes).rope


def test_ropes_of_gemma3() -> None:
    """Layers with a window have their own; what stretches is the other. Both spellings mean the same."""
    old = {"rope_theta": 9.0, "rope_local_base_freq": 5.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    new = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 9.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5.0},
    }
    shape = of_family("gemma3_text", sliding_window_pattern=2, sliding_window=8)
    local, full = RopeSpec(5.0), RopeSpec(9.0, "linear", 8.0)
    assert (local, full, local, full) == read_spec(shape | old).ropes
    assert (local, full, local, full) == read_spec(shape | {"rope_parameters": new}).ropes


def test_rope_of_gpt_oss() -> None:
    """A configuration without any has the published models'."""
    config = {name: value for name, value in of_family("gpt_oss").items() if name != "rope_theta"}
    rope = read_spec(config | {"num_local_experts": 4}).rope
    expected = RopeSpec(150000.0, "yarn", 32.0, original_max_positions=4096, truncate=False)
    assert replace(expected, attention_factor=0.1 * math.log(32.0) + 1.0) == rope


def test_longrope() -> None:
    """Short contexts have their own divisors; one factor of attention serves both."""
    factors = {"short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [2, 3, 4, 5]}
    config = of_family(
        "phi3",
        partial_rotary_factor=0.5,
        original_max_position_embeddings=128,
        rope_scaling={"type": "su", **factors},
    )
    spec = read_spec(config)
    stretch = math.sqrt(1 + math.log(4) / math.log(128))
    short = RopeSpec(500000.0, "longrope", 4.0, 1.0, 1.0, 128, attention_factor=stretch, fraction=0.5)
    short = replace(short, divisors=(1.0, 1.5, 2.0, 2.5))
    assert [short, replace(short, divisors=(2.0, 3.0, 4.0, 5.0))] == [spec.within(128).rope, spec.within(129).rope]


def test_sight() -> None:
    """How far back any layer looks; everything where one layer does."""
    sights = [read_spec(of_family("mistral", sliding_window=8)).sight, read_spec(of_family("gemma2")).sight]
    assert sights == [8, 0]


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
        RopeSpec(10000.0, "yarn", 4.0, original_max_positions=64),
        RopeSpec(10000.0, "yarn", 4.0, original_max_positions=64, beta_fast=16.0),
        RopeSpec(10000.0, "yarn", 4.0, original_max_positions=64, truncate=False),
        RopeSpec(10000.0, "yarn", 4.0, original_max_positions=64, attention_factor=1.1),
        RopeSpec(10000.0, "longrope", 4.0, divisors=(1.0, 2.0)),
        RopeSpec(10000.0, "longrope", 4.0, divisors=(1.0, 3.0)),
        RopeSpec(10000.0, fraction=0.5),
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
        (
            {"model_type": "gpt2"},
            "config.json: model_type 'gpt2' is not supported, only llama, mistral, mixtral, qwen2, qwen2_moe, qwen3, "
            "qwen3_moe, phi3, gemma2, gemma3_text, gpt_oss",
        ),
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "config.json: architectures ['LlamaForSequenceClassification'] is not supported, only ['LlamaForCausalLM']",
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
            {"rope_scaling": {"rope_type": "axial", "factor": 2.0}},
            "config.json: rope_scaling.rope_type 'axial' is not supported, only 'default', 'linear', 'llama3', 'yarn', "
            "'dynamic' and 'longrope'",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 5.0}}},
            "config.json: rope_parameters.full_attention is not supported, only one rope for all layers",
        ),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.0] * 7}},
            "config.json: rope_scaling: long_factor must list 8 positive numbers",
        ),
        (
            {"use_bidirectional_attention": True},
            "config.json: use_bidirectional_attention true is not supported, only false",
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


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("mixtral", {}, "config.json: num_local_experts is missing"),
        (
            "mixtral",
            {"num_local_experts": 1},
            "config.json: num_experts_per_tok 2 is more than num_local_experts 1",
        ),
        ("qwen2_moe", QWEN_EXPERTS, "config.json: shared_expert_intermediate_size is missing"),
        (
            "qwen3_moe",
            QWEN_EXPERTS | {"mlp_only_layers": [4]},
            "config.json: mlp_only_layers must list layers below 4, not [4]",
        ),
        (
            "gpt_oss",
            {"num_local_experts": 4, "quantization_config": {"quant_method": "awq"}},
            "config.json: quantization_config.quant_method 'awq' is not supported, only 'mxfp4'",
        ),
        (
            "gpt_oss",
            {"num_local_experts": 4, "quantization_config": {"quant_method": "mxfp4"}, "intermediate_size": 80},
            "config.json: intermediate_size 80 is no multiple of 32, as MXFP4 needs it",
        ),
        (
            "gemma2",
            {"hidden_activation": "silu"},
            "config.json: hidden_activation 'silu' is not supported, only 'gelu_pytorch_tanh'",
        ),
        ("phi3", {"partial_rotary_factor": 1.5}, "config.json: partial_rotary_factor is not supported, only up to 1"),
        (
            "phi3",
            {"partial_rotary_factor": 0.7},
            "config.json: partial_rotary_factor 0.7 turns 11 of 16 elements of a head, but the rotary embedding needs "
            "two halves",
        ),
        ("mistral", {"sliding_window": 0}, "config.json: sliding_window must be an integer of at least 1, not 0"),
    ],
)
def test_refused_by_family(family: str, changes: dict[str, Any], message: str) -> None:
    """Each family's own fields are named too."""
    with pytest.raises(CheckpointError) as raised:
        read_spec(of_family(family, **changes))
    assert message == str(raised.value)


def test_layer_types_refused() -> None:
    """Every layer needs a kind that is known."""
    config = of_family("qwen2", use_sliding_window=True, layer_types=["full_attention"] * 3)
    with pytest.raises(CheckpointError, match="layer_types must name 'full_attention' or 'sliding_attention' for each"):
        read_spec(config)
