"""What cannot be read is refused in a sentence that names the field or the tensor."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tools.quantise_checkpoint import WEIGHTS, change_config, formats, quantise

from tests.conftest import TinyCheckpoints
from twinfer.core.errors import CheckpointError
from twinfer.model.checkpoint import read_checkpoint
from twinfer.model.prepared import prepare
from twinfer.model.quantised.registry import read_scheme

pytestmark = pytest.mark.torch

FORMATS = formats(group=16)
WHERE = "config.json: quantization_config"
GPTQ, AWQ, FP8 = (FORMATS[name].config for name in ("gptq", "awq", "fp8-block"))
PACKED = FORMATS["packed"].config
Q = "model.layers.0.self_attn.q_proj"


def compressed(changes: dict[str, Any], **others: Any) -> dict[str, Any]:
    """compressed-tensors with other weights or fields."""
    weights = PACKED["config_groups"]["group_0"]["weights"] | changes
    return PACKED | {"config_groups": {"group_0": {"weights": weights}}} | others


GROUP_0 = f"{WHERE}: config_groups: group_0"
CONFIGS: list[tuple[dict[str, Any], str]] = [
    (
        {"quant_method": "bitsandbytes"},
        f"{WHERE}: quant_method 'bitsandbytes' is not supported, only 'awq', 'compressed-tensors', 'fp8', 'gptq'",
    ),
    ({"bits": 4}, f"{WHERE}: quant_method None is not supported, only 'awq', 'compressed-tensors', 'fp8', 'gptq'"),
    (GPTQ | {"bits": 3}, f"{WHERE}: bits 3 is not supported, only 4, 8"),
    (GPTQ | {"bits": None}, f"{WHERE}: bits None is not supported, only 4, 8"),
    (GPTQ | {"group_size": 0}, f"{WHERE}: group_size must be an integer of at least 1, not 0"),
    (GPTQ | {"sym": 1}, f"{WHERE}: sym must be true or false, not 1"),
    (
        GPTQ | {"checkpoint_format": "marlin"},
        f"{WHERE}: checkpoint_format 'marlin' is not supported, only 'gptq', 'gptq_v2'",
    ),
    (GPTQ | {"is_marlin_format": True}, f"{WHERE}: is_marlin_format true is not supported, only false"),
    (
        GPTQ | {"dynamic": {"+:.*down.*": {"bits": 8}}},
        f"{WHERE}: dynamic must not change modules' parameters; only one set is supported",
    ),
    (AWQ | {"bits": 8}, f"{WHERE}: bits 8 is not supported, only 4"),
    (AWQ | {"version": "gemv"}, f"{WHERE}: version 'gemv' is not supported, only 'gemm', 'GEMM'"),
    (AWQ | {"zero_point": False}, f"{WHERE}: zero_point False is not supported, only True"),
    (FP8 | {"fmt": "e5m2"}, f"{WHERE}: fmt 'e5m2' is not supported, only 'e4m3'"),
    (
        FP8 | {"weight_block_size": [128]},
        f"{WHERE}: weight_block_size must list two positive integers, not [128]",
    ),
    (
        compressed({}, format="nvfp4-pack-quantized"),
        f"{WHERE}: format 'nvfp4-pack-quantized' is not supported, only 'pack-quantized', 'int-quantized', "
        "'float-quantized', 'naive-quantized'",
    ),
    (compressed({"num_bits": 3}), f"{GROUP_0}: weights: num_bits 3 is not supported, only 4, 8"),
    (compressed({"type": "float"}), f"{GROUP_0}: weights: type 'float' is not supported, only 'int'"),
    (compressed({}, format="float-quantized"), f"{GROUP_0}: weights: type 'int' is not supported, only 'float'"),
    (
        compressed({"strategy": "token"}),
        f"{GROUP_0}: weights: strategy 'token' is not supported, only 'tensor', 'channel', 'group', 'block'",
    ),
    (
        compressed({"num_bits": 8, "actorder": "group"}, format="int-quantized"),
        f"{GROUP_0}: weights: actorder 'group' is not supported in int-quantized",
    ),
    (compressed({"actorder": "odd"}), f"{GROUP_0}: weights: actorder 'odd' is not supported in pack-quantized"),
    (
        PACKED | {"config_groups": {}},
        f"{WHERE}: config_groups must quantise all weights alike, not in 0 ways",
    ),
    (
        PACKED
        | {
            "config_groups": {
                f"group_{bits}": {"weights": {"num_bits": bits, "strategy": "channel"}} for bits in (4, 8)
            }
        },
        f"{WHERE}: config_groups must quantise all weights alike, not in 2 ways",
    ),
    (
        PACKED | {"sparsity_config": {"format": "sparse-24-bitmask"}},
        f"{WHERE}: sparsity_config is not supported, only dense weights that nothing transforms",
    ),
]


@pytest.mark.parametrize(("config", "expected"), CONFIGS)
def test_configurations(config: dict[str, Any], expected: str) -> None:
    """The field and what it may hold are named."""
    with pytest.raises(CheckpointError) as raised:
        read_scheme({"quantization_config": config})
    assert expected == str(raised.value)


def test_configurations_that_are_read() -> None:
    """What leaves modules alone, or says of activations how they were rounded, is no obstacle."""
    plain = read_scheme({"quantization_config": GPTQ})
    assert plain == read_scheme({"quantization_config": GPTQ | {"dynamic": {"-:.*mlp.*": {}}, "damp_percent": 0.1}})
    naive = read_scheme({"quantization_config": compressed({"num_bits": 8}, format="naive-quantized")})
    assert naive == read_scheme({"quantization_config": compressed({"num_bits": 8}, format="int-quantized")})
    assert read_scheme({"quantization_config": None}) is None


TENSORS: list[tuple[str, str, torch.Tensor | None, str]] = [
    ("gptq", "qweight", None, f"tensor {Q}.qweight is missing from {{directory}}; copy or download it again"),
    ("gptq-reordered", "g_idx", None, f"tensor {Q}.g_idx is missing from {{directory}}; copy or download it again"),
    (
        "gptq",
        "qzeros",
        torch.zeros(4, 9, dtype=torch.int32),
        f"tensor {Q}.qzeros has shape [4, 9], but config.json asks for [4, 8]",
    ),
    ("gptq", "scales", torch.zeros(4, 64).int(), f"tensor {Q}.scales is I32, but config.json asks for F32, BF16, F16"),
    (
        "awq",
        "qweight",
        torch.zeros(8, 64, dtype=torch.int32),
        f"tensor {Q}.qweight has shape [8, 64], but config.json asks for [64, 8]",
    ),
    (
        "packed-zeros",
        "weight_zero_point",
        None,
        f"tensor {Q}.weight_zero_point is missing from {{directory}}; copy or download it again",
    ),
    (
        "float-channel",
        "weight_scale",
        torch.ones(63),
        f"tensor {Q}.weight_scale has shape [63], but config.json asks for [64, 1] or [64]",
    ),
    (
        "fp8-block",
        "weight",
        torch.zeros(64, 64).char(),
        f"tensor {Q}.weight is I8, but config.json asks for F8_E4M3",
    ),
    (
        "fp8-block",
        "weight_scale_inv",
        None,
        f"tensor {Q}.weight_scale_inv is missing from {{directory}}; copy or download it again",
    ),
    (
        "fp8-block",
        "weight",
        torch.zeros(64, 64),
        f"tensor {Q}.weight_scale_inv in {{directory}}/{WEIGHTS} has no place in a llama model",
    ),
    ("awq", "bias", torch.ones(64), f"tensor {Q}.bias in {{directory}}/{WEIGHTS} has no place in a llama model"),
    ("awq", "g_idx", torch.ones(64), f"tensor {Q}.g_idx in {{directory}}/{WEIGHTS} has no place in a llama model"),
    (
        "awq",
        "weight",
        torch.ones(64, 64),
        f"tensor {Q}.qweight in {{directory}}/{WEIGHTS} has no place in a llama model",
    ),
]


@pytest.mark.parametrize(("name", "piece", "changed", "expected"), TENSORS)
def test_tensors(
    name: str, piece: str, changed: torch.Tensor | None, expected: str, tiny: TinyCheckpoints, tmp_path: Path
) -> None:
    """A tensor that is missing, misshapen, of another type or superfluous is named, before any is read."""
    quantise(tiny("tiny-llama"), tmp_path / "q", FORMATS[name])
    tensors = load_file(tmp_path / "q" / WEIGHTS)
    if changed is None:
        del tensors[f"{Q}.{piece}"]
    else:
        tensors[f"{Q}.{piece}"] = changed
    save_file(tensors, tmp_path / "q" / WEIGHTS)
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(tmp_path / "q")
    assert expected.format(directory=tmp_path / "q") == str(raised.value)


def test_without_its_configuration(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Nothing is guessed from tensors alone."""
    quantise(tiny("tiny-llama"), tmp_path / "q", FORMATS["fp8-block"])
    change_config(tmp_path / "q", quantization_config=None)
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(tmp_path / "q")
    assert f"tensor {Q}.weight is F8_E4M3, but config.json asks for F32, BF16, F16" == str(raised.value)


def test_contradictions_leave_no_file(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """What only the data tells is refused while weights are prepared, and what is half prepared goes."""
    quantise(tiny("tiny-llama"), tmp_path / "q", FORMATS["gptq-reordered"])
    tensors = load_file(tmp_path / "q" / WEIGHTS)
    tensors[f"{Q}.g_idx"] += 1
    save_file(tensors, tmp_path / "q" / WEIGHTS)
    with pytest.raises(CheckpointError) as raised:
        prepare(read_checkpoint(tmp_path / "q"), "digest", "bf16", tmp_path / "cache")
    assert f"tensor {Q}.g_idx must name groups from 0 to 3; copy or download it again" == str(raised.value)
    assert [] == list((tmp_path / "cache" / "weights").glob("*.safetensors"))
