"""Which checkpoints may take another's place under gateways that go on."""

import json
import shutil
from pathlib import Path

import pytest

from twinfer.cli.succession import check_successor
from twinfer.core.config import ModelConfig
from twinfer.core.errors import CheckpointError, ConfigError
from twinfer.model.checkpoint import locate

MODEL = ModelConfig("twinfer.demo-v1:0")
DEMO = locate("demo")


@pytest.fixture
def successor(tmp_path: Path) -> Path:
    """A copy of the demo model."""
    return Path(shutil.copytree(DEMO, tmp_path / "new"))


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_other_weights(successor: Path) -> None:
    """Whatever is in them, and however they are stored, as long as all of them are there."""
    path = successor / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    edit(successor / "config.json", transformers_version="9")
    check_successor(MODEL, DEMO, successor, computes=True)


def test_another_tokenizer(successor: Path) -> None:
    """It would make nonsense of prompts that gateways have cut into the old one's tokens."""
    tokenizer = successor / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    with pytest.raises(ConfigError, match=r"cannot take the place of .*: the tokenizers differ"):
        check_successor(MODEL, DEMO, successor, computes=False)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("generation_config.json", {"eos_token_id": 7}, "the tokens that end an answer"),
        ("generation_config.json", {"temperature": 0.5}, "the sampling defaults"),
        ("config.json", {"max_position_embeddings": 64}, "the longest contexts"),
        ("tokenizer_config.json", {"chat_template": "{{ messages }}"}, "the chat templates"),
        ("config.json", {"rms_norm_eps": 0.5}, "`rms_norm_eps` in config.json"),
    ],
)
def test_what_gateways_or_workers_would_not_notice(
    successor: Path, name: str, changes: dict[str, object], reason: str
) -> None:
    """Each difference is named."""
    edit(successor / name, **changes)
    with pytest.raises(ConfigError, match=reason):
        check_successor(MODEL, DEMO, successor, computes=True)


@pytest.mark.parametrize("size", [100, 5000])
def test_broken_weights(successor: Path, size: int) -> None:
    """A file that was cut off is noticed; workers that load nothing do not care."""
    path = successor / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    check_successor(MODEL, DEMO, successor, computes=False)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        check_successor(MODEL, DEMO, successor, computes=True)
