import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tools.make_checkpoint import SHAPES, write_checkpoint

from tests.conftest import TinyCheckpoints
from twinfer.core.errors import CheckpointError
from twinfer.model.checkpoint import locate, read_checkpoint

pytestmark = pytest.mark.torch

WEIGHTS = "model.safetensors"
NORM = "model.layers.1.input_layernorm.weight"


@pytest.fixture
def copy(tiny: TinyCheckpoints, tmp_path: Path) -> Path:
    """A checkpoint to break."""
    return shutil.copytree(tiny("tiny-llama"), tmp_path / "copy")


def rewrite(directory: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the tensors of a checkpoint."""
    tensors = load_file(directory / WEIGHTS)
    change(tensors)
    save_file(tensors, directory / WEIGHTS)


def refusal(directory: Path) -> str:
    """The sentence with which a directory is refused."""
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(directory)
    return str(raised.value)


def test_whole(tiny: TinyCheckpoints) -> None:
    """A whole directory gives its spec and every tensor's place."""
    found = read_checkpoint(tiny("tiny-qwen3"))
    assert (found.spec.family, found.spec.num_layers, found.spec.qk_norm) == ("qwen3", 3, True)
    assert found.tensors["model.layers.2.self_attn.k_norm.weight"].shape == (32,)
    assert tuple(path.name for path in found.files) == (WEIGHTS,)


def test_shards(tmp_path: Path) -> None:
    """Sharded weights are found through the index, and hold the same bytes."""
    write_checkpoint(tmp_path / "one", SHAPES["tiny-llama"], seed=1)
    write_checkpoint(tmp_path / "three", SHAPES["tiny-llama"], seed=1, num_shards=3)
    one, three = read_checkpoint(tmp_path / "one"), read_checkpoint(tmp_path / "three")
    assert len(three.files) == 3
    assert list(one.tensors) == list(three.tensors)
    for name, ours in one.tensors.items():
        theirs = three.tensors[name]
        assert ours.file.read_bytes()[ours.start : ours.end] == theirs.file.read_bytes()[theirs.start : theirs.end]


def test_stored_precision_where_config_is_silent(tmp_path: Path) -> None:
    """Without a dtype in the configuration, the weights' own counts."""
    write_checkpoint(tmp_path, SHAPES["tiny-llama"] | {"dtype": "bfloat16"})
    config = json.loads((tmp_path / "config.json").read_text())
    del config["dtype"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_checkpoint(tmp_path).spec.dtype == "bf16"


def test_generation_config(copy: Path) -> None:
    """Its end-of-sequence ids count too."""
    (copy / "generation_config.json").write_text('{"eos_token_id": [9, 1]}')
    assert read_checkpoint(copy).spec.eos_ids == (9, 1)


def test_tensors_that_may_be_ignored(copy: Path) -> None:
    """Old files hold rope frequencies, and tied ones sometimes a head."""
    config = json.loads((copy / "config.json").read_text()) | {"tie_word_embeddings": True}
    (copy / "config.json").write_text(json.dumps(config))
    rewrite(copy, lambda tensors: tensors.update({"model.rotary_emb.inv_freq": tensors[NORM].clone()}))
    assert "lm_head.weight" not in read_checkpoint(copy).tensors


def test_missing_files(copy: Path) -> None:
    """A missing file is named."""
    (copy / WEIGHTS).unlink()
    assert refusal(copy) == (
        f"{copy} has neither model.safetensors nor model.safetensors.index.json; only safetensors weights are supported"
    )
    (copy / "config.json").unlink()
    assert refusal(copy) == f"{copy} has no config.json; name a model directory in Hugging Face format"


def test_missing_shard(tmp_path: Path) -> None:
    """A shard that the index names must be there."""
    write_checkpoint(tmp_path, SHAPES["tiny-llama"], num_shards=2)
    shard = tmp_path / "model-00002-of-00002.safetensors"
    shard.unlink()
    expected = f"{shard} is missing, though model.safetensors.index.json names it; copy or download it again"
    assert expected == refusal(tmp_path)


def test_shard_outside(copy: Path) -> None:
    """An index cannot name a file elsewhere."""
    (copy / WEIGHTS).rename(copy.parent / WEIGHTS)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": f"../{WEIGHTS}"}}))
    assert "is missing, though" in refusal(copy)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": {}}'])
def test_broken_index(copy: Path, text: str) -> None:
    """A broken index is named."""
    (copy / WEIGHTS).unlink()
    (copy / "model.safetensors.index.json").write_text(text)
    assert refusal(copy).startswith(f"{copy / 'model.safetensors.index.json'} ")


def test_broken_config(copy: Path) -> None:
    """So is a broken configuration."""
    (copy / "config.json").write_text("{")
    assert f"{copy / 'config.json'} cannot be read as JSON; copy or download it again" == refusal(copy)


def test_truncated_weights(copy: Path) -> None:
    """Half-written weights are seen without reading them."""
    whole = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(whole[:-1])
    expected = f"{copy / WEIGHTS} has {len(whole) - 1} bytes instead of {len(whole)}; copy or download it again"
    assert expected == refusal(copy)


def test_missing_tensor(copy: Path) -> None:
    """A missing tensor is named."""
    rewrite(copy, lambda tensors: tensors.pop(NORM))
    assert f"tensor {NORM} is missing from {copy}; copy or download it again" == refusal(copy)


def test_misshapen_tensor(copy: Path) -> None:
    """So is one of another shape."""
    rewrite(copy, lambda tensors: tensors.update({NORM: tensors[NORM][:60].clone()}))
    assert f"tensor {NORM} has shape [60], but config.json asks for [64]" == refusal(copy)


def test_extra_tensor(copy: Path) -> None:
    """So is one that the model has no place for, such as a bias that would be forgotten."""
    name = "model.layers.1.self_attn.q_proj.bias"
    rewrite(copy, lambda tensors: tensors.update({name: tensors[NORM].clone()}))
    assert f"tensor {name} in {copy / WEIGHTS} has no place in a llama model" == refusal(copy)


def test_tensor_in_two_shards(tmp_path: Path) -> None:
    """Two shards must not disagree."""
    write_checkpoint(tmp_path, SHAPES["tiny-llama"], num_shards=2)
    first, second = (tmp_path / f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    shutil.copyfile(first, second)
    assert f"tensor model.embed_tokens.weight is both in {first} and in {second}" == refusal(tmp_path)


def test_locate(tmp_path: Path) -> None:
    """A directory is itself, and nonsense is refused with what would do."""
    assert tmp_path == locate(str(tmp_path))
    with pytest.raises(CheckpointError) as raised:
        locate("no such thing")
    expected = "'no such thing' is neither 'demo', nor a directory, nor a Hugging Face id such as 'org/name'"
    assert expected == str(raised.value)


def test_demo_is_bundled() -> None:
    """The demo model is a directory of the package."""
    assert locate("demo").parts[-2:] == ("twinfer", "demo")


def test_quantised_tensor(copy: Path) -> None:
    """A type that is not served, or not without a configuration that says so, is named with its tensor."""
    import torch

    rewrite(copy, lambda tensors: tensors.update({NORM: torch.zeros(64, dtype=torch.int8)}))
    assert f"tensor {NORM} is I8, but config.json asks for F32, BF16, F16" == refusal(copy)
    rewrite(copy, lambda tensors: tensors.update({NORM: torch.zeros(64, dtype=torch.float64)}))
    supported = "F32, BF16, F16, U8, F8_E4M3, I8, I32, I64"
    assert f"{copy / WEIGHTS}: tensor {NORM} is F64, but only {supported} are supported" == refusal(copy)


MXFP4 = {"quantization_config": {"quant_method": "mxfp4"}}
EXPERTS = "model.layers.1.mlp.experts."
NEW_FAMILIES: dict[str, tuple[str, dict[str, object], list[tuple[str, list[int], list[int]]]]] = {
    "mixtral": (
        "tiny-mixtral",
        {},
        [
            ("model.layers.1.block_sparse_moe.gate.weight", [5, 64], [4, 64]),
            ("model.layers.1.block_sparse_moe.experts.3.w2.weight", [64, 128], [64, 120]),
        ],
    ),
    "qwen2_moe": (
        "tiny-qwen2-moe",
        {},
        [
            (f"{EXPERTS}5.up_proj.weight", [48, 64], [64, 48]),
            ("model.layers.0.mlp.shared_expert_gate.weight", [1, 64], [64]),
            ("model.layers.0.mlp.shared_expert.down_proj.weight", [64, 80], [64, 48]),
        ],
    ),
    "qwen3_moe": ("tiny-qwen3-moe", {}, [(f"{EXPERTS}0.gate_proj.weight", [48, 64], [128, 64])]),
    "gpt_oss": (
        "tiny-gpt-oss",
        {},
        [
            ("model.layers.1.self_attn.sinks", [4], [2]),
            (f"{EXPERTS}gate_up_proj", [5, 64, 256], [5, 256, 64]),
            (f"{EXPERTS}down_proj_bias", [5, 64], [4, 64]),
        ],
    ),
    "gpt_oss in mxfp4": (
        "tiny-gpt-oss",
        MXFP4,
        [
            (f"{EXPERTS}gate_up_proj_blocks", [5, 256, 2, 16], [5, 256, 2, 8]),
            (f"{EXPERTS}down_proj_scales", [5, 64, 4], [5, 64, 2]),
        ],
    ),
    "gemma3_text": ("tiny-gemma3", {}, [("model.layers.2.pre_feedforward_layernorm.weight", [64], [32])]),
    "phi3": ("tiny-phi3", {}, [("model.layers.1.self_attn.qkv_proj.weight", [128, 64], [64, 64])]),
}


@pytest.mark.parametrize("family", NEW_FAMILIES)
def test_tensors_of_other_families(family: str, tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """A tensor that is missing, misshapen or has no place is named, whatever the family calls it."""
    import torch

    shape, changes, cases = NEW_FAMILIES[family]
    directory = shutil.copytree(tiny(shape, **changes), tmp_path / "copy")
    whole = load_file(directory / WEIGHTS)
    for name, expected, other in cases:
        save_file({found: tensor for found, tensor in whole.items() if found != name}, directory / WEIGHTS)
        assert f"tensor {name} is missing from {directory}; copy or download it again" == refusal(directory)
        save_file(whole | {name: torch.zeros(other, dtype=whole[name].dtype)}, directory / WEIGHTS)
        assert f"tensor {name} has shape {other}, but config.json asks for {expected}" == refusal(directory)
        save_file(whole | {f"{name}_g_idx": torch.zeros(2)}, directory / WEIGHTS)
        refused = f"tensor {name}_g_idx in {directory / WEIGHTS} has no place in a {family.split()[0]} model"
        assert refused == refusal(directory)


def test_packed_where_numbers_belong(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Bytes are no numbers, and numbers no MXFP4, even of the right shape."""
    import torch

    directory = shutil.copytree(tiny("tiny-gpt-oss", **MXFP4), tmp_path / "copy")
    whole = load_file(directory / WEIGHTS)
    save_file(whole | {NORM: torch.zeros(64, dtype=torch.uint8)}, directory / WEIGHTS)
    assert f"tensor {NORM} is U8, but config.json asks for F32, BF16, F16" == refusal(directory)
    name = f"{EXPERTS}down_proj_scales"
    save_file(whole | {name: whole[name].float()}, directory / WEIGHTS)
    assert f"tensor {name} is F32, but config.json asks for U8" == refusal(directory)


def test_packed_checkpoint_without_its_configuration(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """MXFP4's tensors need the configuration to say so."""
    directory = shutil.copytree(tiny("tiny-gpt-oss", **MXFP4), tmp_path / "copy")
    config = json.loads((directory / "config.json").read_text())
    del config["quantization_config"]
    (directory / "config.json").write_text(json.dumps(config))
    name = "model.layers.0.mlp.experts.gate_up_proj"
    assert f"tensor {name} is missing from {directory}; copy or download it again" == refusal(directory)
