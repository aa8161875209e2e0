"""Checkpoints that are quantised already give the same model as their numbers, stored plainly."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tools.quantise_checkpoint import WEIGHTS, Format, change_config, formats, is_linear, quantise

from tests.conftest import TinyCheckpoints
from tests.model.driver import Driver
from twinfer.model.checkpoint import read_checkpoint
from twinfer.model.fingerprint import weights_digest
from twinfer.model.mapping import map_file, tensor_view
from twinfer.model.prepared import prepare
from twinfer.model.spec import StoredFormat
from twinfer.model.tensor_file import StoredTensor

pytestmark = pytest.mark.torch

FORMATS = formats(group=16)
PROMPTS = [[5, 1, 4000, 77, 9], [9] * 30]
SHAPES = ["tiny-mixtral", "tiny-qwen2-moe", "tiny-phi3", "tiny-gemma3"]


def write_both(plain: Path, directory: Path, written: Format, chosen: Callable[[str], bool] = is_linear) -> None:
    """A plain checkpoint quantised as ``q``, and as ``d`` the same numbers stored plainly in fp32."""
    numbers = quantise(plain, directory / "q", written, chosen)
    shutil.copytree(plain, directory / "d")
    save_file(numbers, directory / "d" / WEIGHTS)


def assert_same(quantised: Path, dequantised: Path, cache_dir: Path, weights: StoredFormat = "fp32") -> None:
    """Both give the same prepared file, and so the same model."""
    prepared = [
        prepare(read_checkpoint(directory), directory.name, weights, cache_dir)
        for directory in (quantised, dequantised)
    ]
    first, second = map(load_file, prepared)
    assert list(second) == list(first)
    different = [name for name, expected in second.items() if not torch.equal(expected, first[name])]
    assert different == []


@pytest.mark.parametrize("name", FORMATS)
def test_same_tokens(name: str, tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Every weight is the same number in fp32, and so greedy tokens are the same."""
    write_both(tiny("tiny-qwen2"), tmp_path, FORMATS[name])
    assert_same(tmp_path / "q", tmp_path / "d", tmp_path)
    answers = [Driver(tmp_path / each, tmp_path).greedy(PROMPTS, 8) for each in "dq"]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", ["gptq-reordered", "awq", "packed-zeros", "fp8-block"])
@pytest.mark.parametrize("shape", SHAPES)
def test_other_families(shape: str, name: str, tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """So it is with experts that are stored apart, and with matrices that are fused in the file."""
    write_both(tiny(shape), tmp_path, FORMATS[name])
    assert_same(tmp_path / "q", tmp_path / "d", tmp_path)


@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("name", ["gptq-zeros", "awq", "int8", "fp8-block"])
def test_served_precision(name: str, weights: StoredFormat, tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Numbers are rounded, or quantised anew, as those of a plain checkpoint are."""
    write_both(tiny("tiny-llama"), tmp_path, FORMATS[name])
    assert_same(tmp_path / "q", tmp_path / "d", tmp_path, weights)


@pytest.mark.parametrize("name", FORMATS)
def test_large_matrix(name: str, tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """A matrix of which not all rows are decoded at once is the same, and no more of it is in memory than said."""
    head = "lm_head.weight"
    plain = tiny("tiny-llama", vocab_size=20003)
    write_both(plain, tmp_path, FORMATS[name], chosen=lambda each: each == head)
    checkpoint = read_checkpoint(tmp_path / "q")
    mapping = map_file(checkpoint.files[0])

    def view(stored: StoredTensor) -> torch.Tensor:
        return tensor_view(mapping, stored)

    slabs = list(checkpoint.matrices[head].slabs(view))
    assert len(slabs) > 1
    assert max(slab.numel() for slab in slabs) <= 1024 * 1024
    assert torch.equal(load_file(tmp_path / "d" / WEIGHTS)[head], torch.cat(slabs))


def test_digest_tells_schemes_apart(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """The same bytes read in another way are another model, so its prepared weights are others, too."""
    write_both(tiny("tiny-llama"), tmp_path, FORMATS["gptq-zeros"])
    before = weights_digest(read_checkpoint(tmp_path / "q"), tmp_path)
    config = FORMATS["gptq-zeros"].config
    change_config(tmp_path / "q", quantization_config=config | {"checkpoint_format": "gptq_v2"})
    assert before != weights_digest(read_checkpoint(tmp_path / "q"), tmp_path)
    change_config(tmp_path / "q", quantization_config=config | {"modules_to_not_convert": []})
    assert before == weights_digest(read_checkpoint(tmp_path / "q"), tmp_path)


def test_biases_of_zeros(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Some writers give every quantised matrix a bias of zeros; it changes nothing, so it is no obstacle."""
    write_both(tiny("tiny-llama"), tmp_path, FORMATS["gptq"])
    stored = load_file(tmp_path / "q" / WEIGHTS)
    bias = {"model.layers.0.mlp.up_proj.bias": torch.zeros(128)}
    save_file(stored | bias, tmp_path / "q" / WEIGHTS)
    assert_same(tmp_path / "q", tmp_path / "d", tmp_path)


def test_matrices_that_a_checkpoint_leaves_plain(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Which matrices are quantised, the tensors say: any may stay plain."""
    chosen = "model.layers.1.self_attn.k_proj.weight"
    write_both(tiny("tiny-llama"), tmp_path, FORMATS["awq"], lambda name: name == chosen)
    assert [chosen] == list(read_checkpoint(tmp_path / "q").matrices)
    assert_same(tmp_path / "q", tmp_path / "d", tmp_path, "int8")


def test_shards(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """A matrix's tensors may lie in several files."""
    write_both(tiny("tiny-llama"), tmp_path, FORMATS["gptq"])
    tensors = load_file(tmp_path / "q" / WEIGHTS)
    names = sorted(tensors)
    index: dict[str, str] = {}
    for shard in range(2):
        held = {name: tensors[name] for name in names[shard::2]}
        save_file(held, tmp_path / "q" / f"{shard}.safetensors")
        index |= dict.fromkeys(held, f"{shard}.safetensors")
    (tmp_path / "q" / WEIGHTS).unlink()
    (tmp_path / "q" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert_same(tmp_path / "q", tmp_path / "d", tmp_path)


def test_float16_is_served_in_bf16(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """What a writer's kernels computed in is no precision of the weights, and ours compute in bf16."""
    write_both(tiny("tiny-llama"), tmp_path, FORMATS["gptq"])
    for dtype, expected in (("float16", "bf16"), ("bfloat16", "bf16"), ("float32", "fp32")):
        change_config(tmp_path / "q", dtype=dtype)
        assert expected == read_checkpoint(tmp_path / "q").spec.dtype
