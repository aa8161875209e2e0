"""Find a model directory in Hugging Face format and check, without reading its weights, that it is whole."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from twinfer.core.errors import CheckpointError
from twinfer.model.hub import download
from twinfer.model.spec import ModelSpec, Precision, read_spec
from twinfer.model.tensor_file import StoredTensor, read_header
from twinfer.model.tensor_names import may_be_ignored, parts

DEMO = "demo"
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_STORED_PRECISION: dict[str, Precision] = {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checked model directory.

    Attributes:
        directory: where it is.
        spec: what it says of the model.
        files: its weight files, in order of name.
        tensors: every tensor that serving needs, by its name in the checkpoint.
    """

    directory: Path
    spec: ModelSpec
    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]


def locate(source: str, hub_cache: Path | None = None) -> Path:
    """The directory of ``demo``, of a path, or of a Hugging Face id (from the local cache, else downloaded).

    Raises:
        CheckpointError: there is no such directory, or the download failed.
    """
    if source == DEMO:
        return Path(str(files("twinfer").joinpath(DEMO)))
    directory = Path(source).expanduser()
    if directory.is_dir():
        return directory
    if _HUB_ID.fullmatch(source):
        return download(source, is_whole=_has_files, cache=hub_cache)
    raise CheckpointError(f"{source!r} is neither 'demo', nor a directory, nor a Hugging Face id such as 'org/name'")


def read_checkpoint(directory: Path) -> Checkpoint:
    """Check a directory: configuration, weight files, and every tensor's presence and shape.

    Raises:
        CheckpointError: something is missing, broken or unsupported; the message names the file, field or tensor.
    """
    if not (directory / "config.json").is_file():
        raise CheckpointError(f"{directory} has no config.json; name a model directory in Hugging Face format")
    config = _read_json(directory / "config.json")
    generation = directory / "generation_config.json"
    spec = read_spec(config, _read_json(generation) if generation.is_file() else None)
    paths = _weight_files(directory)
    tensors = _read_tensors(paths)
    _check_tensors(directory, spec, tensors)
    if "dtype" not in config and "torch_dtype" not in config:
        spec = replace(spec, dtype=_STORED_PRECISION[tensors["model.embed_tokens.weight"].dtype])
    needed = {name: tensors[name] for part in parts(spec) for name, _ in part.sources}
    return Checkpoint(directory, spec, paths, needed)


def _has_files(directory: Path) -> bool:
    return (directory / "config.json").is_file() and bool(_weight_files(directory))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON; copy or download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return value


def _weight_files(directory: Path) -> tuple[Path, ...]:
    """The file, or the shards that the index names."""
    if (directory / _SINGLE).is_file():
        return (directory / _SINGLE,)
    if not (directory / _INDEX).is_file():
        raise CheckpointError(f"{directory} has neither {_SINGLE} nor {_INDEX}; only safetensors weights are supported")
    weight_map = _read_json(directory / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{directory / _INDEX} has no weight_map; copy or download it again")
    paths = tuple(directory / name for name in sorted(set(map(str, weight_map.values()))))
    for path in paths:
        if path.parent != directory or not path.is_file():
            raise CheckpointError(f"{path} is missing, though {_INDEX} names it; copy or download it again")
    return paths


def _read_tensors(paths: tuple[Path, ...]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for path in paths:
        for name, tensor in read_header(path).tensors.items():
            if name in tensors:
                raise CheckpointError(f"tensor {name} is both in {tensors[name].file} and in {path}")
            tensors[name] = tensor
    return tensors


def _check_tensors(directory: Path, spec: ModelSpec, tensors: Mapping[str, StoredTensor]) -> None:
    expected = {name: shape for part in parts(spec) for name, shape in part.sources}
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(f"tensor {name} is missing from {directory}; copy or download it again")
        if tensors[name].shape != shape:
            found = list(tensors[name].shape)
            raise CheckpointError(f"tensor {name} has shape {found}, but config.json asks for {list(shape)}")
        if tensors[name].dtype not in _STORED_PRECISION:
            raise CheckpointError(
                f"tensor {name} is {tensors[name].dtype}, but only {', '.join(_STORED_PRECISION)} are supported"
            )
    for name in tensors:
        if name not in expected and not may_be_ignored(name, spec):
            raise CheckpointError(f"tensor {name} in {tensors[name].file} has no place in a {spec.family} model")
