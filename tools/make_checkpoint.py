"""Write a checkpoint of random weights in Hugging Face format: a real model's shape for measurements, or a tiny one.

The weights are normal with the spread that keeps activations near 1, so logits differ as those of a trained model do,
though the text is nonsense. They are made and written piece by piece: memory stays small whatever the shape.

    python tools/make_checkpoint.py qwen2.5-0.5b /tmp/qwen-shape
    python tools/make_checkpoint.py tiny-llama /tmp/tiny --dtype float32
"""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from twinfer.core.errors import TwinferError
from twinfer.model.checkpoint import DEMO, locate
from twinfer.model.dtypes import STORED, TORCH
from twinfer.model.read_config import read_spec
from twinfer.model.spec import ModelSpec
from twinfer.model.tensor_file import PACKED, TensorShape, write_tensors
from twinfer.model.tensor_names import parts

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_PIECE_ELEMENTS = 4 * 1024 * 1024

_TINY: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "eos_token_id": 1,
    "dtype": "float32",
}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-0.5b": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "eos_token_id": 151643,
        "dtype": "bfloat16",
    },
    "llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
        "eos_token_id": 128001,
        "dtype": "bfloat16",
    },
    "tiny-llama": _TINY | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
    "tiny-llama3": _TINY
    | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "tie_word_embeddings": True,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "tiny-mistral": _TINY
    | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "head_dim": 16, "sliding_window": 24},
    "tiny-qwen2": _TINY | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": True},
    "tiny-mixtral": _TINY
    | {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": 5,
        "sliding_window": None,
    },
    "tiny-qwen2-moe": _TINY
    | {
        "architectures": ["Qwen2MoeForCausalLM"],
        "model_type": "qwen2_moe",
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 48,
        "shared_expert_intermediate_size": 80,
        "norm_topk_prob": False,
    },
    "tiny-qwen3-moe": _TINY
    | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "head_dim": 32,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "norm_topk_prob": True,
    },
    "tiny-gpt-oss": _TINY
    | {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "head_dim": 16,
        "attention_bias": True,
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "sliding_window": 24,
        "swiglu_limit": 1.0,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 8.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 64,
        },
    },
    "tiny-gemma2": _TINY
    | {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "head_dim": 32,
        "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 24,
        "sliding_window": 24,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
    },
    "tiny-gemma3": _TINY
    | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "head_dim": 32,
        "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 24,
        "sliding_window": 24,
        "sliding_window_pattern": 3,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
    "tiny-phi3": _TINY
    | {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "pad_token_id": 0,
        "partial_rotary_factor": 0.5,
        "sliding_window": 24,
    },
    "tiny-qwen3": _TINY | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32},
}


def write_checkpoint(directory: Path, config: Mapping[str, Any], seed: int = 0, num_shards: int = 1) -> None:
    """Write ``config.json`` and random weights for it; the same seed gives the same bytes, however many shards."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    shapes = _stored_shapes(read_spec(config))
    generator = torch.Generator().manual_seed(seed)
    if num_shards == 1:
        write_tensors(directory / "model.safetensors", shapes, _random_data(shapes, generator), format="pt")
        return
    weight_map: dict[str, str] = {}
    for shard in range(num_shards):
        name = f"model-{shard + 1:05d}-of-{num_shards:05d}.safetensors"
        held = shapes[len(shapes) * shard // num_shards : len(shapes) * (shard + 1) // num_shards]
        write_tensors(directory / name, held, _random_data(held, generator), format="pt")
        weight_map |= dict.fromkeys((tensor.name for tensor in held), name)
    index = {"metadata": {"total_size": sum(tensor.num_bytes for tensor in shapes)}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def copy_tokenizer(source: Path, directory: Path) -> list[str]:
    """Copy what there is of a tokenizer; returns the names of the files."""
    found = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    for name in found:
        shutil.copyfile(source / name, directory / name)
    return found


def _stored_shapes(spec: ModelSpec) -> list[TensorShape]:
    return [
        TensorShape(name, PACKED if part.form == "mxfp4" else STORED[spec.dtype], shape)
        for part in parts(spec)
        for name, shape in part.sources
    ]


def _random_data(shapes: Sequence[TensorShape], generator: torch.Generator) -> Iterator[memoryview]:
    """Matrices with a spread of 1 / sqrt(inputs), norms around 1, small biases."""
    dtypes = {STORED[precision]: TORCH[precision] for precision in STORED}
    for tensor in shapes:
        if tensor.dtype == PACKED:
            yield _random_bytes(tensor, generator).numpy().data
            continue
        is_norm = tensor.name.endswith("norm.weight")
        spread = 0.1 if len(tensor.shape) == 1 else tensor.shape[1] ** -0.5
        left = tensor.num_bytes // dtypes[tensor.dtype].itemsize
        while left:
            count = min(left, _PIECE_ELEMENTS)
            values = torch.randn(count, generator=generator).mul_(spread).add_(1.0 if is_norm else 0.0)
            yield values.to(dtypes[tensor.dtype]).view(torch.uint8).numpy().data
            left -= count


def _random_bytes(tensor: TensorShape, generator: torch.Generator) -> torch.Tensor:
    """MXFP4: blocks of any bits, whose elements spread by 3, and scales of about a third of 1 / sqrt(inputs)."""
    if len(tensor.shape) == 4:
        return torch.randint(256, (tensor.num_bytes,), dtype=torch.uint8, generator=generator)
    middle = 125 - round(math.log2(tensor.shape[-1] * 32) / 2)
    return torch.randint(middle - 1, middle + 2, (tensor.num_bytes,), dtype=torch.uint8, generator=generator)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Write a checkpoint of random weights in Hugging Face format.",
        epilog="shapes: " + ", ".join(SHAPES),
    )
    parser.add_argument("shape", choices=SHAPES, metavar="shape", help="one of the shapes below")
    parser.add_argument("directory", type=Path, help="where to write; created when missing")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="instead of the shape's own")
    parser.add_argument("--shards", type=int, default=1, help="number of weight files (default: 1)")
    parser.add_argument("--tokenizer", type=Path, help="directory of the tokenizer to copy (default: the demo model's)")
    options = parser.parse_args(arguments)
    config = dict(SHAPES[options.shape])
    config["dtype"] = options.dtype or config["dtype"]
    if options.shards < 1:
        parser.error("--shards must be at least 1")
    try:
        write_checkpoint(options.directory, config, options.seed, options.shards)
        copied = copy_tokenizer(options.tokenizer or locate(DEMO), options.directory)
    except (OSError, TwinferError) as error:
        print(f"make_checkpoint: {error}", file=sys.stderr)
        return 2
    print(f"{options.directory}: {options.shape}, {config['dtype']}, tokenizer: {', '.join(copied) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
