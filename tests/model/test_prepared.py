import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tools.make_checkpoint import SHAPES, write_checkpoint

from tests.conftest import TinyCheckpoints
from twinfer.core.errors import CheckpointError
from twinfer.model.checkpoint import read_checkpoint
from twinfer.model.kernels.library import find_kernels
from twinfer.model.matrix import PlainMatrix, UnpackedMatrix
from twinfer.model.packing import PACKINGS
from twinfer.model.prepared import load_weights, prepare
from twinfer.model.spec import Precision, StoredFormat
from twinfer.model.tensor_file import read_header

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


def test_fused(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Each part is its sources, stacked, bit by bit."""
    checkpoint = read_checkpoint(tiny("tiny-qwen2"))
    weights = load_weights(prepare(checkpoint, "d", "fp32", tmp_path), checkpoint.spec, CPU)
    stored = load_file(checkpoint.files[0])
    prefix = "model.layers.2."
    for part, names in {
        "qkv": [f"self_attn.{x}_proj.weight" for x in "qkv"],
        "qkv_bias": [f"self_attn.{x}_proj.bias" for x in "qkv"],
        "out": ["self_attn.o_proj.weight"],
        "attention_norm": ["input_layernorm.weight"],
        "mlp_norm": ["post_attention_layernorm.weight"],
        "gate_up": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
        "down": ["mlp.down_proj.weight"],
    }.items():
        expected = torch.cat([stored[prefix + name] for name in names])
        found = getattr(weights.layers[2], part)
        assert torch.equal(expected, found.weight if isinstance(found, PlainMatrix) else found), part
    assert torch.equal(stored["model.embed_tokens.weight"], weights.embedding)
    assert torch.equal(stored["model.norm.weight"], weights.final_norm)
    assert weights.layers[2].out_bias is None


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_converted(tiny: TinyCheckpoints, tmp_path: Path, precision: Precision, dtype: torch.dtype) -> None:
    """Another precision is the stored values, rounded."""
    checkpoint = read_checkpoint(tiny("tiny-llama"))
    weights = load_weights(prepare(checkpoint, "d", precision, tmp_path), checkpoint.spec, CPU)
    stored = load_file(checkpoint.files[0])
    assert dtype == weights.dtype
    assert torch.equal(stored["lm_head.weight"].to(dtype), weights.head.weight)


def test_tied_embeddings_are_one_tensor(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """A tied head is the embedding itself, in memory and in the file."""
    checkpoint = read_checkpoint(tiny("tiny-qwen2"))
    path = prepare(checkpoint, "d", "fp32", tmp_path)
    weights = load_weights(path, checkpoint.spec, CPU)
    assert weights.head.weight.data_ptr() == weights.embedding.data_ptr()
    assert "head" not in read_header(path).tensors


@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-qwen2"])
def test_packed(tiny: TinyCheckpoints, tmp_path: Path, weights: StoredFormat, shape: str) -> None:
    """Matrices are their stacked sources, packed; the embedding is not, and a tied head is a packed one of its own."""
    checkpoint = read_checkpoint(tiny(shape))
    path = prepare(checkpoint, "d", weights, tmp_path)
    loaded = load_weights(path, checkpoint.spec, CPU)
    stored = load_file(checkpoint.files[0])
    prefix = "model.layers.1.self_attn."
    qkv = torch.cat([stored[f"{prefix}{x}_proj.weight"] for x in "qkv"])
    embedding = stored["model.embed_tokens.weight"]
    head = stored.get("lm_head.weight", embedding)
    for expected, found in ((qkv, loaded.layers[1].qkv), (head, loaded.head)):
        assert isinstance(found, UnpackedMatrix)
        packed = PACKINGS[weights].pack(expected)
        assert all(torch.equal(a, b) for a, b in zip(packed, found.tensors, strict=True))
    assert torch.equal(embedding.bfloat16(), loaded.embedding)


@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
def test_products_with_and_without_kernels(tiny: TinyCheckpoints, tmp_path: Path, weights: StoredFormat) -> None:
    """Whoever multiplies, the result is the same up to rounding."""
    checkpoint = read_checkpoint(tiny("tiny-qwen2"))
    path = prepare(checkpoint, "d", weights, tmp_path)
    by_torch, ours = (load_weights(path, checkpoint.spec, CPU, kernels) for kernels in (None, find_kernels(2)))
    for rows in (1, 5, 30):
        hidden = torch.randn(rows, checkpoint.spec.hidden_size).bfloat16()
        bias = by_torch.layers[0].qkv_bias
        expected = by_torch.layers[0].qkv.product(hidden, bias)
        found = ours.layers[0].qkv.product(hidden, bias)
        assert (found - expected).abs().max() <= 0.02 * expected.abs().max()


def test_tensors_lie_in_the_mapped_file(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Every tensor is in a read-only shared mapping of the cache file, so processes share its pages."""
    checkpoint = read_checkpoint(tiny("tiny-llama"))
    path = prepare(checkpoint, "d", "fp32", tmp_path)
    weights = load_weights(path, checkpoint.spec, CPU)
    mapped = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, rights, *_, file = line.split(maxsplit=5)
        if file == str(path):
            assert rights == "r--s"
            mapped.append([int(bound, 16) for bound in bounds.split("-")])
    for tensor in (weights.embedding, weights.head.weight, weights.layers[0].qkv.weight, weights.layers[2].mlp_norm):
        address = tensor.data_ptr()
        assert any(low <= address and address + tensor.nbytes <= high for low, high in mapped)


def test_made_once(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """A whole file is taken as it is; another precision or digest has its own."""
    checkpoint = read_checkpoint(tiny("tiny-llama"))
    first = prepare(checkpoint, "d", "bf16", tmp_path)
    made = first.stat()
    assert first == prepare(checkpoint, "d", "bf16", tmp_path)
    assert (made.st_ino, made.st_mtime_ns) == (first.stat().st_ino, first.stat().st_mtime_ns)
    others = {prepare(checkpoint, "d", "fp32", tmp_path), prepare(checkpoint, "e", "bf16", tmp_path)}
    assert len(others - {first}) == 2


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped bit", "other tensors"])
def test_damaged_file_is_made_again(tiny: TinyCheckpoints, tmp_path: Path, damage: str) -> None:
    """Whatever is wrong with the cache file, it is seen and the file made anew."""
    checkpoint = read_checkpoint(tiny("tiny-llama"))
    path = prepare(checkpoint, "d", "bf16", tmp_path)
    whole = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(whole[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "flipped bit":
        path.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    else:
        path.write_bytes(prepare(read_checkpoint(tiny("tiny-qwen3")), "e", "bf16", tmp_path).read_bytes())
    assert path == prepare(checkpoint, "d", "bf16", tmp_path)
    assert whole == path.read_bytes()


def test_unwanted_files_go_when_another_is_made(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Those whose tensors a worker still computes with stay; without another one, nothing goes."""
    checkpoint = read_checkpoint(tiny("tiny-llama"))
    unwanted, used = (prepare(checkpoint, digest, "bf16", tmp_path) for digest in ("a", "b"))
    weights = load_weights(used, checkpoint.spec, CPU)
    for path in (unwanted, used):
        os.utime(path, (100.0, 100.0))
    wanted = prepare(checkpoint, "a", "bf16", tmp_path)
    assert wanted == unwanted
    prepare(checkpoint, "c", "bf16", tmp_path)
    assert [unwanted.exists(), used.exists()] == [True, True]
    os.utime(unwanted, (100.0, 100.0))
    prepare(checkpoint, "d", "bf16", tmp_path)
    assert [unwanted.exists(), used.exists()] == [False, True]
    assert weights.embedding.isfinite().all()


def _prepare_and_name_inode(directory: str, cache_dir: str, start: object) -> int:
    start.wait()  # type: ignore[attr-defined]
    return prepare(read_checkpoint(Path(directory)), "d", "fp32", Path(cache_dir)).stat().st_ino


def test_two_workers_prepare_once(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """Processes that start together end with the same file, and leave nothing half-made."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["twinfer.model.prepared", __name__])
    with context.Manager() as manager, context.Pool(2) as pool:
        start = manager.Barrier(2)
        arguments = (str(tiny("tiny-llama")), str(tmp_path), start)
        inodes = pool.starmap(_prepare_and_name_inode, [arguments, arguments], chunksize=1)
    assert len(set(inodes)) == 1
    assert len([path for path in (tmp_path / "weights").iterdir() if not path.name.startswith(".")]) == 1
    assert list((tmp_path / "weights").glob("*.tmp")) == []


def test_unwritable_cache(tiny: TinyCheckpoints, tmp_path: Path) -> None:
    """A cache directory that cannot be used is named, with the way out."""
    (tmp_path / "weights").write_text("a file in the way")
    with pytest.raises(CheckpointError, match=r"cannot be written to .* set cache_dir to another place"):
        prepare(read_checkpoint(tiny("tiny-llama")), "d", "fp32", tmp_path)


STREAMING = """
import resource, sys
from pathlib import Path
import torch
from twinfer.model.checkpoint import read_checkpoint
from twinfer.model.prepared import prepare

torch.set_num_threads(1)
checkpoint = read_checkpoint(Path(sys.argv[1]))
size = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
limit = size + 48 * 1024 * 1024
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
prepare(checkpoint, "d", "fp32", Path(sys.argv[2]))
"""


def test_preparation_streams(tmp_path: Path) -> None:
    """A model of 100 MB is prepared with far less private memory than that."""
    shape = SHAPES["tiny-llama"] | {"vocab_size": 100_000, "hidden_size": 256, "dtype": "bfloat16", "head_dim": 16}
    write_checkpoint(tmp_path / "model", shape | {"tie_word_embeddings": True})
    program = [sys.executable, "-c", STREAMING, str(tmp_path / "model"), str(tmp_path / "cache")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    (path,) = (tmp_path / "cache" / "weights").glob("*.safetensors")
    assert path.stat().st_size > 100_000_000
