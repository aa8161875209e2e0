"""From a described model to a runner: the weights are prepared (once per machine), mapped, and put to work."""

from pathlib import Path

import torch

from twinfer.grammar.masks import GrammarMasks
from twinfer.grammar.vocabulary import load_vocabulary
from twinfer.model.kernels.library import find_kernels
from twinfer.model.paged_kv import PagedKV
from twinfer.model.prepared import load_weights, prepare
from twinfer.model.recorder import Recorder
from twinfer.model.runner import ModelRunner
from twinfer.model.served import ServedModel


def load_runner(model: ServedModel, kv: PagedKV, cache_dir: Path, recorder: Recorder | None = None) -> ModelRunner:
    """Load a model's weights to the device of its KV.

    Args:
        model: from ``served.describe``.
        kv: over a pool such as ``paged_kv.pool_tensor`` makes one, in the layout that ``model.layout`` gives.
        cache_dir: where prepared weights are kept.
        recorder: of decode steps, for ``ModelRunner``.

    Raises:
        CheckpointError: prepared weights cannot be written, or the tokenizer cannot be read.
    """
    path = prepare(model.checkpoint, model.fingerprint.weights, model.weights, cache_dir)
    weights = load_weights(path, model.spec, kv.pool.device, find_kernels(torch.get_num_threads()))
    vocabulary = load_vocabulary(model.checkpoint.directory, model.spec.vocab_size)
    masks = None if vocabulary is None else GrammarMasks(vocabulary)
    return ModelRunner(model.spec, weights, kv, model.max_context_tokens, masks, recorder)
