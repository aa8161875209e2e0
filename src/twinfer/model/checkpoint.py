"""Find a model directory in Hugging Face format and check, without reading its weights, that it is whole."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from twinfer.core.errors import CheckpointError
from twinfer.model.hub import download
from twinfer.model.quantised.matrix import QuantisedMatrix, belongs, find_matrices
from twinfer.model.quantised.registry import read_scheme
from twinfer.model.quantised.scheme import Scheme
from twinfer.model.read_config import read_spec
from twinfer.model.spec import ModelSpec, Precision
from twinfer.model.tensor_file import PACKED, StoredTensor, read_header
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
        tensors: every tensor that serving needs as it is, by its name in the checkpoint.
        matrices: those that are quantised, by the names that they would have as plain tensors.
        scheme: how they are quantised; ``None`` where none is.
    """

    directory: Path
    spec: ModelSpec
    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]
    matrices: Mapping[str, QuantisedMatrix] = field(default_factory=dict)
    scheme: Scheme | None = None


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
    scheme = read_scheme(config)
    paths = _weight_files(directory)
    tensors = _read_tensors(paths)
    matrices = find_matrices(spec, scheme, tensors, directory) if scheme is not None else {}
    _check_tensors(directory, spec, tensors, matrices)
    if "dtype" not in config and "torch_dtype" not in config:
        spec = replace(spec, dtype=_STORED_PRECISION[tensors["model.embed_tokens.weight"].dtype])
    if scheme is not None and spec.dtype == "fp16":
        # Which is what the writer's kernels computed in; ours do in bf16.
        spec = replace(spec, dtype="bf16")
    needed = {name: tensors[name] for part in parts(spec) for name, _ in part.sources if name not in matrices}
    return Checkpoint(directory, spec, paths, needed, matrices, scheme)


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


def _check_tensors(
    directory: Path, spec: ModelSpec, tensors: Mapping[str, StoredTensor], matrices: Mapping[str, QuantisedMatrix]
) -> None:
    """All but the tensors of quantised matrices, which are checked where they are found."""
    expected = {name: shape for part in parts(spec) for name, shape in part.sources if name not in matrices}
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(f"tensor {name} is missing from {directory}; copy or download it again")
        if tensors[name].shape != shape:
            found = list(tensors[name].shape)
            raise CheckpointError(f"tensor {name} has shape {found}, but config.json asks for {list(shape)}")
    packed = {name for part in parts(spec) if part.form == "mxfp4" for name, _ in part.sources}
    for name in expected:
        wanted = [PACKED] if name in packed else list(_STORED_PRECISION)
        if tensors[name].dtype not in wanted:
            raise CheckpointError(
                f"tensor {name} is {tensors[name].dtype}, but config.json asks for {', '.join(wanted)}"
            )
    for name, tensor in tensors.items():
        known = name in expected or may_be_ignored(name, spec) or (matrices and belongs(name, tensor, matrices))
        if not known:
            raise CheckpointError(f"tensor {name} in {tensor.file} has no place in a {spec.family} model")
