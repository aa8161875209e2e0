"""What a worker knows of its model before any weight is loaded: enough to publish its capabilities."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from twinfer.core.capabilities import Fingerprint
from twinfer.core.config import WeightFormat
from twinfer.core.errors import ConfigError
from twinfer.core.layout import KVDtype, KVLayout
from twinfer.model.checkpoint import Checkpoint, locate, read_checkpoint
from twinfer.model.fingerprint import fingerprint
from twinfer.model.spec import ModelSpec, StoredFormat, arithmetic


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A checkpoint with the precision it is served in.

    Attributes:
        weights: precision of the weights.
        kv_dtype: element type of the KV pool.
        max_context_tokens: prompt and answer together, at most.
    """

    checkpoint: Checkpoint
    fingerprint: Fingerprint
    weights: StoredFormat
    kv_dtype: KVDtype
    max_context_tokens: int

    @property
    def spec(self) -> ModelSpec:
        """The model's shape."""
        return self.checkpoint.spec

    @property
    def provenance(self) -> str:
        """What its KV was made with, such as ``bf16/fp32``."""
        return f"{self.weights}/{self.kv_dtype}"

    def layout(self, block_tokens: int) -> KVLayout:
        """The layout of a KV pool for this model."""
        spec = self.spec
        return KVLayout(spec.num_layers, spec.num_kv_heads, spec.head_dim, block_tokens, self.kv_dtype)


def describe(
    source: str,
    cache_dir: Path,
    weights: WeightFormat = "checkpoint",
    kv_dtype: KVDtype | Literal["weights"] = "weights",
    max_context_tokens: int = 0,
) -> ServedModel:
    """Find and check a model, and settle how it is served. The options are the configuration's, in its words.

    Args:
        source: ``demo``, a directory, or a Hugging Face id.
        cache_dir: where digests are remembered.
        weights: ``checkpoint`` keeps the stored precision.
        kv_dtype: ``weights`` takes theirs.
        max_context_tokens: 0 takes the model's own.

    Raises:
        CheckpointError: the model cannot be found or used.
        ConfigError: it cannot be served as asked.
    """
    checkpoint = read_checkpoint(locate(source))
    spec = checkpoint.spec
    precision = spec.dtype if weights == "checkpoint" else weights
    context = max_context_tokens or spec.max_positions
    if context > spec.max_positions:
        raise ConfigError(f"max_context_tokens {context} is more than the {spec.max_positions} of the model {source!r}")
    checkpoint = replace(checkpoint, spec=spec.within(context))
    kv = arithmetic(precision) if kv_dtype == "weights" else kv_dtype
    return ServedModel(checkpoint, fingerprint(checkpoint, cache_dir), precision, kv, context)
