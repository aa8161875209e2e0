import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub.utils import filter_repo_objects

from tests.conftest import TinyCheckpoints
from twinfer.core.errors import CheckpointError
from twinfer.model.checkpoint import locate, read_checkpoint
from twinfer.model.hub import UNWANTED, WANTED

pytestmark = pytest.mark.torch

HUB_ID = "someone/tiny-model"
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def cached(tiny: TinyCheckpoints, tmp_path: Path) -> Path:
    """A snapshot in a cache as huggingface_hub lays it out."""
    root = tmp_path / "models--someone--tiny-model"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(REVISION)
    return shutil.copytree(tiny("tiny-llama"), root / "snapshots" / REVISION)


def test_cached_snapshot_is_used(cached: Path, tmp_path: Path) -> None:
    """What is in the local cache needs no network."""
    found = locate(HUB_ID, hub_cache=tmp_path)
    assert cached == found
    assert read_checkpoint(found).spec.family == "llama"


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_incomplete_snapshot_is_not_trusted(cached: Path, tmp_path: Path, missing: str) -> None:
    """Where a file is missing, the network is asked, and read_checkpoint names the file if that fails too."""
    (cached / missing).unlink()
    with pytest.raises(CheckpointError, match=missing):
        read_checkpoint(locate(HUB_ID, hub_cache=tmp_path))


def test_weights_are_downloaded_once() -> None:
    """What the files of gpt-oss and Mistral say a second time, in their makers' own layout, stays where it is."""
    served = ["config.json", "model-00000-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json"]
    others = ["original/model.safetensors", "original/config.json", "metal/model.bin", "consolidated.safetensors"]
    found = filter_repo_objects(served + others, allow_patterns=WANTED, ignore_patterns=UNWANTED)
    assert served == list(found)


def test_offline(tmp_path: Path) -> None:
    """Without cache and network, one sentence says so."""
    with pytest.raises(CheckpointError) as raised:
        locate(HUB_ID, hub_cache=tmp_path)
    expected = f"{HUB_ID} is no directory, not in the Hugging Face cache, and cannot be downloaded: "
    assert str(raised.value).startswith(expected)
    assert "\n" not in str(raised.value)


def test_bad_id(tmp_path: Path) -> None:
    """An id that the hub would not have is refused the same way."""
    with pytest.raises(CheckpointError, match="a--b/c is no directory"):
        locate("a--b/c", hub_cache=tmp_path)
