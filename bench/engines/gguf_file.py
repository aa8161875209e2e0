"""A checkpoint in Hugging Face format of Qwen2's shape, written as a GGUF file in bf16.

Its vocabulary is the checkpoint's where that is byte-level and has a text for every token, else a made-up one.
"""

import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

ARCHITECTURE = "qwen2"


def write_gguf(checkpoint: Path, path: Path) -> None:
    """Matrices stay bf16; vectors become fp32, as llama.cpp wants them."""
    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(str(path), ARCHITECTURE)
    _describe(writer, config)
    tokenizer = checkpoint / "tokenizer.json"
    model = json.loads(tokenizer.read_text())["model"] if tokenizer.exists() else {"vocab": {}}
    if len(model["vocab"]) == config["vocab_size"]:
        _name_tokens(writer, sorted(model["vocab"], key=model["vocab"].__getitem__), model["merges"], config)
    else:
        _name_tokens(writer, [f"t{number}" for number in range(config["vocab_size"])], [["t", "0"]], config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config["num_hidden_layers"])
    for name, values in _tensors(checkpoint / "model.safetensors"):
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if values.ndim == 1:
            writer.add_tensor(stored, (values.astype(np.uint32) << 16).view(np.float32))
        else:
            rows = values.view(np.uint8)
            writer.add_tensor(stored, rows, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _name_tokens(writer: gguf.GGUFWriter, tokens: list[str], merges: list[list[str]], config: dict[str, Any]) -> None:
    """Texts of all tokens by id, and pairs that are joined in this order."""
    end = config["eos_token_id"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.NORMAL] * len(tokens)
    kinds[end] = gguf.TokenType.CONTROL
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)


def _tensors(path: Path) -> "Iterator[tuple[str, np.ndarray[Any, np.dtype[np.uint16]]]]":
    """Names and bf16 elements of a file of safetensors."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for name, entry in header.items():
        if name != "__metadata__":
            if entry["dtype"] != "BF16":
                raise SystemExit(f"{path}: {name} is {entry['dtype']}; only bf16 checkpoints are compared")
            first, last = entry["data_offsets"]
            flat = np.frombuffer(data, np.uint16, (last - first) // 2, 8 + size + first)
            yield name, flat.reshape(entry["shape"])
