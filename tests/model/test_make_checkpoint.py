import math
from pathlib import Path

import pytest
from tools.make_checkpoint import SHAPES, main

from twinfer.model.checkpoint import read_checkpoint
from twinfer.model.read_config import read_spec
from twinfer.model.tensor_names import parts

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("shape", sorted(name for name in SHAPES if name.startswith("tiny-")))
def test_shapes(shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every tiny shape is a whole checkpoint, with the tokenizer it is given."""
    (tmp_path / "tokenizer.json").write_text("{}")
    out = tmp_path / "out"
    arguments = [shape, str(out), "--dtype", "bfloat16", "--shards", "2", "--tokenizer", str(tmp_path)]
    assert main(arguments) == 0
    found = read_checkpoint(out)
    assert (found.spec.dtype, len(found.files)) == ("bf16", 2)
    assert (out / "tokenizer.json").read_text() == "{}"
    assert capsys.readouterr().out.endswith(f"{shape}, bfloat16, tokenizer: tokenizer.json\n")


def test_seed(tmp_path: Path) -> None:
    """The same seed gives the same bytes, another seed others."""
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["tiny-qwen3", str(tmp_path / name), "--seed", seed]) == 0
    first, second, third = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert first == second
    assert first != third


def test_eight_billion() -> None:
    """The shape that GPUs are measured with has Llama 3.1 8B's 8.03 billion elements."""
    shapes = [part.shape for part in parts(read_spec(SHAPES["llama-3.1-8b"]))]
    assert 8_030_261_248 == sum(math.prod(shape) for shape in shapes)


def test_qwen_shape() -> None:
    """The real model's shape is the published one."""
    spec = read_spec(SHAPES["qwen2.5-0.5b"])
    assert (
        spec.num_layers,
        spec.hidden_size,
        spec.num_heads,
        spec.num_kv_heads,
        spec.head_dim,
        spec.intermediate_size,
    ) == (24, 896, 14, 2, 64, 4864)
    assert (
        spec.vocab_size,
        spec.tied_embeddings,
        spec.qkv_bias,
        spec.rope.theta,
        spec.max_positions,
        spec.dtype,
    ) == (151936, True, True, 1e6, 32768, "bf16")


def test_unwritable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A place that cannot be written is a sentence, not a trace."""
    (tmp_path / "file").write_text("")
    assert main(["tiny-llama", str(tmp_path / "file" / "out")]) == 2
    assert capsys.readouterr().err.startswith("make_checkpoint: ")
