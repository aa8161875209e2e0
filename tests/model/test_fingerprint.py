import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tools.make_checkpoint import SHAPES, write_checkpoint

from tests.conftest import TinyCheckpoints
from twinfer.core.capabilities import Fingerprint
from twinfer.model.checkpoint import read_checkpoint
from twinfer.model.fingerprint import file_digest, fingerprint, tokenizer_digest, weights_digest

pytestmark = pytest.mark.torch


@pytest.fixture
def copy(tiny: TinyCheckpoints, tmp_path: Path) -> Path:
    """A checkpoint to change."""
    return shutil.copytree(tiny("tiny-qwen3"), tmp_path / "copy")


def test_copies_are_equal(tiny: TinyCheckpoints, copy: Path, tmp_path: Path) -> None:
    """The directory is no part of a checkpoint's identity."""
    ours = fingerprint(read_checkpoint(tiny("tiny-qwen3")), tmp_path / "here")
    assert ours == fingerprint(read_checkpoint(copy), tmp_path / "there")
    expected = Fingerprint(ours.weights, "", 3, 2, 32, "rotate halves, theta 10000")
    assert expected == ours


def test_different_weights_differ(tmp_path: Path) -> None:
    """Another seed, and a single changed byte, give other digests."""
    write_checkpoint(tmp_path / "a", SHAPES["tiny-llama"], seed=1)
    write_checkpoint(tmp_path / "b", SHAPES["tiny-llama"], seed=2)
    first, second = (weights_digest(read_checkpoint(tmp_path / x), tmp_path) for x in "ab")
    with (tmp_path / "a" / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    third = weights_digest(read_checkpoint(tmp_path / "a"), tmp_path)
    assert len({first, second, third}) == 3


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"rms_norm_eps": 1e-5}, False),
        ({"rope_theta": 7.0}, False),
        ({"use_sliding_window": True, "max_window_layers": 0}, False),
        ({"eos_token_id": 3, "max_position_embeddings": 256, "transformers_version": "9"}, True),
    ],
)
def test_geometry_counts(copy: Path, tmp_path: Path, changes: dict[str, object], same: bool) -> None:
    """Whatever changes K and V changes the digest, and nothing else of the configuration does."""
    before = weights_digest(read_checkpoint(copy), tmp_path)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | changes))
    assert same is (before == weights_digest(read_checkpoint(copy), tmp_path))


def test_precision_is_no_geometry(copy: Path, tmp_path: Path) -> None:
    """The precision that the configuration names is no part of it: the stored bytes say it."""
    found = read_checkpoint(copy)
    other = replace(found, spec=replace(found.spec, dtype="bf16"))
    assert weights_digest(found, tmp_path) == weights_digest(other, tmp_path)


def test_digest_is_remembered(tmp_path: Path) -> None:
    """A settled file is hashed once: what is remembered under its identity is believed."""
    path, cache = tmp_path / "file", tmp_path / "cache"
    path.write_bytes(b"content")
    digest = file_digest(path, cache, settled_s=0.0)
    (remembered,) = [entry for entry in (cache / "digests").iterdir() if not entry.name.startswith(".")]
    remembered.write_bytes(b"sixteen bytes!!!")
    assert file_digest(path, cache) == b"sixteen bytes!!!"
    remembered.write_bytes(b"cut off")
    assert digest == file_digest(path, cache)


def test_young_file_is_not_remembered(tmp_path: Path) -> None:
    """A file that may still be written in the same tick is hashed again."""
    path, cache = tmp_path / "file", tmp_path / "cache"
    path.write_bytes(b"content")
    file_digest(path, cache, settled_s=3600.0)
    assert [entry for entry in (cache / "digests").iterdir() if not entry.name.startswith(".")] == []


def test_changed_file_has_another_digest(tmp_path: Path) -> None:
    """A rewritten file of the same length is another one."""
    path, cache = tmp_path / "file", tmp_path / "cache"
    path.write_bytes(b"content")
    before = file_digest(path, cache, settled_s=0.0)
    path.unlink()
    path.write_bytes(b"CONTENT")
    assert before != file_digest(path, cache, settled_s=0.0)


def test_tokenizer_digest(tmp_path: Path) -> None:
    """The tokenizer's file counts; none is the empty string."""
    assert tokenizer_digest(tmp_path) == ""
    (tmp_path / "tokenizer.json").write_text("{}")
    first = tokenizer_digest(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{ }")
    assert len(first) == 32
    assert first != tokenizer_digest(tmp_path)
