"""Identity of a checkpoint: equal for every copy, different for different weights, and cheap after the first time.

The weights' digest is BLAKE2b over the model's geometry, every byte of the weight files, and how they are quantised.
That takes about a second per gigabyte and core, so each file's digest is kept in the cache directory under the file's
identity: device, inode, size and the times of its last change. A file that changed within the last seconds is not
remembered, since another write in the same tick of the file system's clock could go unseen.
"""

import json
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

from twinfer.core.capabilities import Fingerprint
from twinfer.model.cache_files import locked, replacing
from twinfer.model.checkpoint import Checkpoint

_SEGMENT_BYTES = 64 * 1024 * 1024
_DIGEST_BYTES = 16
_SETTLED_S = 2.0
_NOT_GEOMETRY = ("max_positions", "eos_ids", "dtype", "short_rope")
"""Fields of the spec that change no K or V."""


def fingerprint(checkpoint: Checkpoint, cache_dir: Path) -> Fingerprint:
    """What another worker's KV must come from to mean the same here."""
    spec = checkpoint.spec
    return Fingerprint(
        weights=weights_digest(checkpoint, cache_dir),
        tokenizer=tokenizer_digest(checkpoint.directory),
        num_layers=spec.num_layers,
        num_kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        rope="; ".join(rope.in_words() for rope in (spec.rope, spec.local_rope) if rope is not None),
    )


def weights_digest(checkpoint: Checkpoint, cache_dir: Path) -> str:
    """Digest of the model's geometry, of all its weight files' bytes and of how they are to be read, in hexadecimal."""
    geometry = {name: value for name, value in asdict(checkpoint.spec).items() if name not in _NOT_GEOMETRY}
    digest = blake2b(json.dumps(geometry, sort_keys=True).encode(), digest_size=_DIGEST_BYTES)
    for path in checkpoint.files:
        digest.update(file_digest(path, cache_dir))
    if checkpoint.scheme is not None:
        digest.update(repr(checkpoint.scheme).encode())
    return digest.hexdigest()


def tokenizer_digest(directory: Path) -> str:
    """Digest of the tokenizer's file, in hexadecimal; empty where there is none."""
    for name in ("tokenizer.json", "tokenizer.model"):
        path = directory / name
        if path.is_file():
            return blake2b(path.read_bytes(), digest_size=_DIGEST_BYTES).hexdigest()
    return ""


def file_digest(path: Path, cache_dir: Path, settled_s: float = _SETTLED_S) -> bytes:
    """Digest of a file's bytes, remembered in ``cache_dir`` if its last change is ``settled_s`` seconds ago."""
    state = path.stat()
    identity = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    name = blake2b(repr(identity).encode(), digest_size=_DIGEST_BYTES).hexdigest()
    remembered = cache_dir / "digests" / name
    with locked(remembered):
        if remembered.is_file() and len(known := remembered.read_bytes()) == _DIGEST_BYTES:
            return known
        digest = _hash_file(path)
        if time.time() - state.st_ctime >= settled_s:
            with replacing(remembered) as temporary:
                temporary.write_bytes(digest)
        return digest


def _hash_file(path: Path) -> bytes:
    """A digest over the digests of the file's segments, which are hashed on all cores."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as view,
    ):

        def hash_segment(start: int) -> bytes:
            with view[start : start + _SEGMENT_BYTES] as segment:
                return blake2b(segment, digest_size=_DIGEST_BYTES).digest()

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            segments = pool.map(hash_segment, range(0, len(view), _SEGMENT_BYTES))
            return blake2b(b"".join(segments), digest_size=_DIGEST_BYTES).digest()
