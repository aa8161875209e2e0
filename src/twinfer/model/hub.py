"""A Hugging Face id to a local directory: what is in the local cache is used without asking the network."""

from collections.abc import Callable
from pathlib import Path

from twinfer.core.errors import CheckpointError

WANTED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]
"""Files of a model that are downloaded."""
UNWANTED = ["*/*", "consolidated*"]
"""But not these: the same weights once more, as their makers' own programs read them."""


def download(hub_id: str, is_whole: Callable[[Path], bool], cache: Path | None = None) -> Path:
    """The snapshot of a model, fetched if the cached one is missing or, by ``is_whole``, incomplete.

    Args:
        hub_id: such as ``Qwen/Qwen2.5-0.5B``.
        is_whole: whether a directory has all its files; may raise CheckpointError instead of answering no.
        cache: directory of the cache; ``None`` takes huggingface_hub's own.

    Raises:
        CheckpointError: it is neither in the cache nor could it be fetched.
    """
    # Imported here because it takes a third of a second and most models are directories.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # that of its HTTP client

    def snapshot(local: bool) -> Path:
        return Path(
            snapshot_download(
                hub_id, cache_dir=cache, allow_patterns=WANTED, ignore_patterns=UNWANTED, local_files_only=local
            )
        )

    try:
        cached = snapshot(local=True)
        if is_whole(cached):
            return cached
    except (CheckpointError, OSError, ValueError):
        pass  # nothing there, or not all of it; the second try says why it cannot be had either
    try:
        return snapshot(local=False)
    except (OSError, ValueError, HTTPError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{hub_id} is no directory, not in the Hugging Face cache, and cannot be downloaded: {reason}"
        ) from error
