"""From a described model to a runner: the weights are prepared (once per machine), mapped, and put to work."""

from pathlib import Path

import torch
from torch import Tensor

from twinfer.core.layout import KVLayout
from twinfer.grammar.masks import GrammarMasks
from twinfer.grammar.vocabulary import load_vocabulary
from twinfer.model.kernels.library import find_kernels
from twinfer.model.prepared import load_weights, prepare
from twinfer.model.runner import ModelRunner
from twinfer.model.served import ServedModel


def load_runner(model: ServedModel, pool: Tensor, layout: KVLayout, cache_dir: Path) -> ModelRunner:
    """Load a model's weights to the pool's device.

    Args:
        model: from ``served.describe``.
        pool: the KV pool, such as ``paged_kv.pool_tensor`` makes one; its device is the model's.
        layout: of the pool, from ``model.layout``.
        cache_dir: where prepared weights are kept.

    Raises:
        CheckpointError: prepared weights cannot be written, or the tokenizer cannot be read.
    """
    path = prepare(model.checkpoint, model.fingerprint.weights, model.weights, cache_dir)
    weights = load_weights(path, model.spec, torch.device(pool.device), find_kernels(torch.get_num_threads()))
    vocabulary = load_vocabulary(model.checkpoint.directory, model.spec.vocab_size)
    masks = None if vocabulary is None else GrammarMasks(vocabulary)
    return ModelRunner(model.spec, weights, pool, layout, model.max_context_tokens, masks)
