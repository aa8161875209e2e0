from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from twinfer.core.errors import CheckpointError
from twinfer.model.tensor_file import StoredTensor, TensorShape, read_header, write_tensors

SHAPES = [TensorShape("b", "F32", (3, 2)), TensorShape("a", "F16", (5,)), TensorShape("empty", "F32", (0, 4))]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A small file of ours: 24 bytes of ``b``, 10 of ``a``."""
    path = tmp_path / "x.safetensors"
    write_tensors(path, SHAPES, [memoryview(bytes(range(20))), memoryview(bytes(range(20, 34)))], format="pt")
    return path


def test_written_file_is_safetensors(written: Path) -> None:
    """The reference implementation reads what is written, however the data was cut."""
    tensors = load_file(written)
    assert bytes(range(24)) == tensors["b"].tobytes()
    assert bytes(range(24, 34)) == tensors["a"].tobytes()
    assert {name: array.shape for name, array in tensors.items()} == {"b": (3, 2), "a": (5,), "empty": (0, 4)}


def test_header_of_own_file(written: Path) -> None:
    """Reading finds each tensor's place, and data that start aligned."""
    found = read_header(written)
    start = found.data_start
    assert start % 64 == 0
    assert StoredTensor(written, "F32", (3, 2), start, start + 24) == found.tensors["b"]
    assert StoredTensor(written, "F16", (5,), start + 24, start + 34) == found.tensors["a"]
    assert len(found.digest) == 16


def test_header_of_foreign_file(tmp_path: Path) -> None:
    """Files of the reference implementation are read, and have no digest."""
    path = tmp_path / "x.safetensors"
    save_file({"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, path)
    found = read_header(path)
    place = found.tensors["x"]
    assert (place.shape, found.digest) == ((2, 3), "")
    assert np.arange(6, dtype=np.float32).tobytes() == path.read_bytes()[place.start : place.end]


def test_digest_depends_on_data(tmp_path: Path) -> None:
    """Other bytes give another digest, other cuts do not."""
    shapes, digests = [TensorShape("x", "F16", (2,))], []
    for data in ([b"abcd"], [b"ab", b"cd"], [b"abce"]):
        write_tensors(tmp_path / "x", shapes, map(memoryview, data))
        digests.append(read_header(tmp_path / "x").digest)
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_wrong_stream(tmp_path: Path) -> None:
    """A stream of the wrong length is a mistake of the caller."""
    with pytest.raises(ValueError, match="instead of"):
        write_tensors(tmp_path / "x", SHAPES, [memoryview(b"abc")])


def test_every_truncation_is_seen(written: Path) -> None:
    """A file cut off anywhere is refused in a sentence that names it."""
    whole = written.read_bytes()
    for size in range(len(whole)):
        written.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=f"{written} .*again"):
            read_header(written)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"not json", "has no readable safetensors header"),
        (b"[]", "has no readable safetensors header"),
        (b'{"x": 3}', "has no readable safetensors header"),
        (b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}', "has no readable safetensors header"),
        (
            b'{"x": {"dtype": "F64", "shape": [4], "data_offsets": [0, 32]}}',
            "tensor x is F64, but only F32, BF16, F16, U8, F8_E4M3, I8, I32, I64 are",
        ),
        (b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "tensor x does not fill its place"),
        (b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}', "tensor x does not fill its place"),
        (b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', "has 74 bytes instead of 78"),
    ],
)
def test_broken_headers(tmp_path: Path, header: bytes, message: str) -> None:
    """A header that makes no sense is refused."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"data")
    message = message.replace("74", str(len(header) + 12)).replace("78", str(len(header) + 16))
    with pytest.raises(CheckpointError, match=message):
        read_header(path)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(CheckpointError, match="nothing cannot be read: No such file or directory"):
        read_header(tmp_path / "nothing")
