"""Checkpoints that are quantised already give the same model as their numbers, stored plainly."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import TinyCheckpoints
from tests.model.driver import Driver, make_request
from tests.model.quantised_formats import FORMATS, GROUP, WEIGHTS, change_config, packed, quantise
from twinfer.model.checkpoint import read_checkpoint
from twinfer.model.fingerprint import weights_digest
from twinfer.model.mapping import map_file, tensor_view
from twinfer.model.prepared import prepare
from twinfer.model.spec import StoredFormat
from twinfer.model.tensor_file import StoredTensor

pytestmark = pytest.mark.torch

PROMPTS = [[5, 1, 4000, 77, 9], [9] * 30]
SHAPES = ["tiny-mixtral", "tiny-qwen2-moe", "tiny-phi3", "tiny-gemma3"]


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
    quantise(tiny("tiny-qwen2"), tmp_path / "q", tmp_path / "d", FORMATS[name])
    assert_same(tmp_path / "q", tmp_path / "d", tmp_path)
    answers = [Driver(tmp_path / each, tmp_path).greedy(PROMPTS, 8) for each in "dq"]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", ["gptq reordered", "awq", "packed with zero points", "fp8 by block"])
@pytest.mark.parametrize("shape", SHAPES)
def test_other_families(shape: str, name: str, tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """So it is with experts that are stored apart, and with matrices that are fused in the file."""
    quantise(tiny(shape), tmp_path / "q", tmp_path / "d", FORMATS[name])
    assert_same(tmp_path / "q", tmp_path / "d", tmp_path)


@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("name", ["gptq with zeros", "awq", "int8", "fp8 by block"])
def test_served_precision(name: str, weights: StoredFormat, tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Numbers are rounded, or quantised anew, as those of a plain checkpoint are."""
    quantise(tiny("tiny-llama"), tmp_path / "q", tmp_path / "d", FORMATS[name])
    assert_same(tmp_path / "q", tmp_path / "d", tmp_path, weights)


@pytest.mark.parametrize("name", FORMATS)
def test_large_matrix(name: str, tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """A matrix of which not all rows are decoded at once is the same, and no more of it is in memory than said."""
    head = "lm_head.weight"
    plain = tiny("tiny-llama", vocab_size=20003)
    quantise(plain, tmp_path / "q", tmp_path / "d", FORMATS[name], chosen=lambda each: each == head)
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
    quantise(tiny("tiny-llama"), tmp_path / "q", tmp_path / "d", FORMATS["gptq with zeros"])
    before = weights_digest(read_checkpoint(tmp_path / "q"), tmp_path)
    config = FORMATS["gptq with zeros"].config
    change_config(tmp_path / "q", quantization_config=config | {"checkpoint_format": "gptq_v2"})
    assert before != weights_digest(read_checkpoint(tmp_path / "q"), tmp_path)
    change_config(tmp_path / "q", quantization_config=config | {"modules_to_not_convert": []})
    assert before == weights_digest(read_checkpoint(tmp_path / "q"), tmp_path)


def test_biases_of_zeros(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Some writers give every quantised matrix a bias of zeros; it changes nothing, so it is no obstacle."""
    quantise(tiny("tiny-llama"), tmp_path / "q", tmp_path / "d", FORMATS["gptq"])
    stored = load_file(tmp_path / "q" / WEIGHTS)
    bias = {"model.layers.0.mlp.up_proj.bias": torch.zeros(128)}
    save_file(stored | bias, tmp_path / "q" / WEIGHTS)
    assert_same(tmp_path / "q", tmp_path / "d", tmp_path)


def test_matrices_that_a_checkpoint_leaves_plain(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Which matrices are quantised, the tensors say: any may stay plain."""
    chosen = "model.layers.1.self_attn.k_proj.weight"
    quantise(tiny("tiny-llama"), tmp_path / "q", tmp_path / "d", FORMATS["awq"], lambda name: name == chosen)
    assert [chosen] == list(read_checkpoint(tmp_path / "q").matrices)
    assert_same(tmp_path / "q", tmp_path / "d", tmp_path, "int8")


@pytest.mark.parametrize("group", [GROUP, 32, 64])
def test_loss_of_quantising_anew(group: int, tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """int4 of int4 loses less than int4 loses of the original, but not nothing: scales differ."""
    quantise(tiny("tiny-llama"), tmp_path / "q", tmp_path / "d", packed(group=group))

    def answer(directory: Path, weights: StoredFormat) -> torch.Tensor:
        draws = Driver(directory, tmp_path, weights, "fp32").generate(
            [make_request("r", PROMPTS[0], top_logprobs=0)], 1
        )
        return torch.tensor([draw.logprob for draw in draws[0]])

    assert (answer(tmp_path / "q", "int4") - answer(tmp_path / "q", "bf16")).abs().max() < 0.5
