"""Quantise a checkpoint in one of the formats that are published, each written from its definition.

    python tools/quantise_checkpoint.py src/twinfer/demo /tmp/gptq --format gptq --group 128

Every element is rounded to the nearest: that is enough for tests and for trying a format, while the tools that the
formats come from choose what to round how by what a model is used for.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "model.safetensors"
E4M3_MAX = 448.0
Encoded = tuple[dict[str, Tensor], Tensor]
"""Tensors by the last part of their names, and the numbers ``[out, in]`` in fp32."""


@dataclass(frozen=True)
class Format:
    """A method with its parameters: the ``quantization_config`` and what it makes of a matrix."""

    config: dict[str, Any]
    encode: Callable[[Tensor], Encoded]


def words(values: Tensor, bits: int, order: tuple[int, ...] = ()) -> Tensor:
    """``[rows, N]`` non-negative integers in words along the rows, padded with zeros; the first of ``order`` lowest."""
    per_word = 32 // bits
    padded = np.zeros((len(values), -(-values.shape[1] // per_word) * per_word), np.uint32)
    padded[:, : values.shape[1]] = values.numpy()
    packed = np.zeros((len(padded), padded.shape[1] // per_word), np.uint32)
    for place, element in enumerate(order or range(per_word)):
        packed |= padded[:, element::per_word] << np.uint32(bits * place)
    return torch.from_numpy(packed.view(np.int32))


@dataclass(frozen=True)
class Integers:
    """A matrix in integers from 0 on: ``elements [out, in]``, ``zeros`` and ``scales [out, groups]``."""

    elements: Tensor
    zeros: Tensor
    scales: Tensor
    groups: Tensor

    @property
    def numbers(self) -> Tensor:
        """What they mean."""
        return (self.elements - self.zeros[:, self.groups]).float() * self.scales.float()[:, self.groups]


def integers(matrix: Tensor, bits: int, groups: Tensor, symmetric: bool, dtype: torch.dtype) -> Integers:
    """Round a matrix; ``groups [in]`` says which inputs share a scale."""
    highest, middle = (1 << bits) - 1, 1 << (bits - 1)
    scales, zeros = [], []
    for group in range(int(groups.max()) + 1):
        part = matrix[:, groups == group]
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        scale = (torch.maximum(-low, high) / (middle - 1) if symmetric else (high - low) / highest).to(dtype)
        scales.append(scale)
        zeros.append(torch.full_like(low, middle) if symmetric else (-low / scale.float()).round())
    scale, zero = torch.stack(scales, 1), torch.stack(zeros, 1).clamp(0, highest).int()
    elements = ((matrix / scale.float()[:, groups]).round().int() + zero[:, groups]).clamp(0, highest)
    return Integers(elements, zero, scale, groups)


def consecutive(inputs: int, group: int) -> Tensor:
    """The group of each input."""
    return torch.arange(inputs) // (group or inputs)


def gptq(bits: int = 4, symmetric: bool = True, version: int = 1, group: int = 128, **options: bool) -> Format:
    """GPTQ. ``reordered`` deals inputs out to groups; ``misnamed`` names the other version."""
    reordered = options.get("reordered", False)

    def encode(matrix: Tensor) -> Encoded:
        groups = consecutive(matrix.shape[1], group)
        if reordered:
            groups = groups[torch.randperm(len(groups), generator=torch.Generator().manual_seed(len(groups)))]
        found = integers(matrix, bits, groups, symmetric, torch.float16)
        zeros = (found.zeros - (2 - version)) % (1 << bits)
        tensors = {
            "qweight": words(found.elements, bits).T.contiguous(),
            "qzeros": words(zeros.T, bits),
            "scales": found.scales.T.contiguous(),
            "g_idx": groups.int(),
        }
        return tensors, found.numbers

    named = 3 - version if options.get("misnamed") else version
    config = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group or -1,
        "sym": symmetric,
        "desc_act": reordered,
        "checkpoint_format": "gptq" if named == 1 else "gptq_v2",
    }
    return Format(config, encode)


def awq(group: int) -> Format:
    """AWQ for "gemm" kernels."""

    def encode(matrix: Tensor) -> Encoded:
        found = integers(matrix, 4, consecutive(matrix.shape[1], group), False, torch.float16)
        order = (0, 2, 4, 6, 1, 3, 5, 7)
        tensors = {
            "qweight": words(found.elements.T, 4, order),
            "qzeros": words(found.zeros.T, 4, order),
            "scales": found.scales.T.contiguous(),
        }
        return tensors, found.numbers

    config = {"quant_method": "awq", "bits": 4, "group_size": group or -1, "version": "gemm", "zero_point": True}
    return Format(config, encode)


def _compressed_config(file_format: str, **weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": file_format,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
    }


def packed(bits: int = 4, symmetric: bool = True, group: int = 128, reordered: bool = False) -> Format:
    """compressed-tensors' packed integers; a group of 0 is a channel."""

    def encode(matrix: Tensor) -> Encoded:
        groups = consecutive(matrix.shape[1], group)
        if reordered:
            groups = groups[torch.randperm(len(groups), generator=torch.Generator().manual_seed(len(groups)))]
        found = integers(matrix, bits, groups, symmetric, torch.bfloat16)
        tensors = {
            "weight_packed": words(found.elements, bits),
            "weight_scale": found.scales,
            "weight_shape": torch.tensor(matrix.shape),
        }
        if not symmetric:
            tensors["weight_zero_point"] = words(found.zeros.T, bits).T.contiguous()
        if reordered:
            tensors["weight_g_idx"] = groups.int()
        return tensors, found.numbers

    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    order = "group" if reordered else None
    config = _compressed_config(
        "pack-quantized", num_bits=bits, type="int", symmetric=symmetric, actorder=order, **strategy
    )
    return Format(config, encode)


def int8(symmetric: bool = True) -> Format:
    """compressed-tensors' int8 with a scale per channel."""

    def encode(matrix: Tensor) -> Encoded:
        found = integers(matrix, 8, consecutive(matrix.shape[1], 0), symmetric, torch.float32)
        tensors = {"weight": (found.elements - 128).to(torch.int8), "weight_scale": found.scales}
        if not symmetric:
            tensors["weight_zero_point"] = (found.zeros - 128).to(torch.int8)
        return tensors, found.numbers

    config = _compressed_config("int-quantized", num_bits=8, type="int", symmetric=symmetric, strategy="channel")
    return Format(config, encode)


def in_cells(matrix: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """E4M3, a scale in fp32 for each cell, and the numbers; one cell after the other."""
    height, width = -(-matrix.shape[0] // rows), -(-matrix.shape[1] // columns)
    scales, numbers = torch.empty(height, width), torch.empty_like(matrix)
    elements = torch.empty(matrix.shape, dtype=torch.float8_e4m3fn)
    for i in range(height):
        for j in range(width):
            cell = slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns)
            scales[i, j] = matrix[cell].abs().max() / E4M3_MAX
            elements[cell] = (matrix[cell] / scales[i, j]).to(torch.float8_e4m3fn)
            numbers[cell] = elements[cell].float() * scales[i, j]
    return elements, scales, numbers


def floats(strategy: str) -> Format:
    """compressed-tensors' fp8."""

    def encode(matrix: Tensor) -> Encoded:
        outputs, inputs = matrix.shape
        sizes = {"tensor": (outputs, inputs), "channel": (1, inputs), "block": (32, 24)}[strategy]
        elements, scales, numbers = in_cells(matrix, *sizes)
        stored = {"weight": elements, "weight_scale": scales.flatten() if strategy == "tensor" else scales}
        return stored | {"input_scale": torch.tensor([0.5])}, numbers

    block = [32, 24] if strategy == "block" else None
    config = _compressed_config("float-quantized", num_bits=8, type="float", strategy=strategy, block_structure=block)
    return Format(config, encode)


def fp8(block: tuple[int, int] | None = (32, 48), name: str = "weight_scale_inv") -> Format:
    """FP8 with a scale per block, or one."""

    def encode(matrix: Tensor) -> Encoded:
        elements, scales, numbers = in_cells(matrix, *(block or matrix.shape))
        return {"weight": elements, name: scales if block else scales[0, 0].clone()}, numbers

    config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": block}
    return Format(config, encode)


def formats(group: int) -> dict[str, Format]:
    """All that can be written, with so many inputs in a group where there are groups."""
    return {
        "gptq": gptq(group=group),
        "gptq-zeros": gptq(symmetric=False, group=group),
        "gptq-v2-zeros": gptq(symmetric=False, version=2, group=group),
        "gptq-8-zeros": gptq(bits=8, symmetric=False, group=group),
        "gptq-reordered": gptq(symmetric=False, reordered=True, group=group),
        "gptq-one-group": gptq(group=0),
        "gptq-misnamed": gptq(version=2, misnamed=True, group=group),
        "awq": awq(group),
        "awq-one-group": awq(group=0),
        "packed": packed(group=group),
        "packed-zeros": packed(symmetric=False, group=group),
        "packed-reordered": packed(symmetric=False, reordered=True, group=group),
        "packed-8-channel": packed(bits=8, group=0),
        "packed-8-channel-zeros": packed(bits=8, group=0, symmetric=False),
        "int8": int8(),
        "int8-zeros": int8(symmetric=False),
        "float-tensor": floats("tensor"),
        "float-channel": floats("channel"),
        "float-block": floats("block"),
        "fp8-block": fp8(),
        "fp8-tensor": fp8(None, "weight_scale"),
        "fp8-tensor-other-name": fp8(None),
    }


def is_linear(name: str) -> bool:
    """Whether writers quantise a tensor where nobody says otherwise: projections, but no router."""
    return name.endswith("_proj.weight") or ".experts." in name


def quantise(plain: Path, out: Path, written: Format, chosen: Callable[[str], bool] = is_linear) -> dict[str, Tensor]:
    """Write a plain checkpoint quantised, and return all its tensors in the numbers that are now meant.

    Args:
        plain: a directory with its weights in one file.
        out: a new directory.
        written: the format.
        chosen: by their names, the matrices to quantise.
    """
    shutil.copytree(plain, out, ignore=shutil.ignore_patterns(WEIGHTS))
    tensors = load_file(plain / WEIGHTS)
    stored, numbers = dict(tensors), dict(tensors)
    for name in filter(chosen, tensors):
        pieces, numbers[name] = written.encode(tensors[name].float())
        del stored[name]
        stored |= {f"{name.removesuffix('weight')}{last}": piece for last, piece in pieces.items()}
    save_file(stored, out / WEIGHTS)
    change_config(out, quantization_config=written.config)
    return numbers


def change_config(directory: Path, **changes: Any) -> None:
    """Change fields of a checkpoint's configuration."""
    config = json.loads((directory / "config.json").read_text()) | changes
    (directory / "config.json").write_text(json.dumps(config))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plain", type=Path, help="directory with config.json and model.safetensors")
    parser.add_argument("out", type=Path, help="directory to make")
    parser.add_argument("--format", choices=formats(128), default="gptq", help="default: gptq, symmetric in 4 bits")
    parser.add_argument("--group", type=int, default=128, help="inputs that share a scale, where a format has groups")
    options = parser.parse_args(arguments)
    quantise(options.plain, options.out, formats(options.group)[options.format])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
