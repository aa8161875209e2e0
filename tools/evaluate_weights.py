"""Measure what weight formats cost a model in quality: held-out bits per byte, and distances of logits.

    python tools/evaluate_weights.py
    python tools/evaluate_weights.py --files 12 --formats bf16 int4
    python tools/evaluate_weights.py --model /tmp/gptq --formats fp32 bf16 int4

The model is the demo's, or one in a directory that has a tokenizer.

The files are those that training has not seen, the measure is `evaluate_demo_model.py`'s, and the decoder is the one
that serves, with KV in bf16. A distance is the largest difference of a logit from the first format's, over all tokens
of the first 2,000 positions.
"""

import argparse
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo_model import encode_files, held_out_bits, read_corpus, split_corpus
from evaluate_demo_model import STRIDE, WINDOW
from twinfer.core.ids import ModelId, RequestId, TenantId
from twinfer.core.request import GenerationRequest, Stopping
from twinfer.core.step import Slice
from twinfer.model.batch import BatchBuilder
from twinfer.model.checkpoint import DEMO, locate
from twinfer.model.decoder import forward
from twinfer.model.kernels.library import find_kernels
from twinfer.model.paged_kv import PagedKV, pool_tensor
from twinfer.model.prepared import load_weights, prepare
from twinfer.model.rope import RopeTable
from twinfer.model.served import describe
from twinfer.model.spec import StoredFormat

_BLOCK_TOKENS = 16


class Scorer:
    """A model in one weight format: logits of every position of a text."""

    def __init__(self, model: str, weights: StoredFormat, cache_dir: Path) -> None:
        served = describe(model, cache_dir, weights, "fp32" if weights == "fp32" else "bf16")
        path = prepare(served.checkpoint, served.fingerprint.weights, weights, cache_dir)
        layout, num_blocks = served.layout(_BLOCK_TOKENS), WINDOW // _BLOCK_TOKENS
        buffer = memoryview(bytearray(num_blocks * layout.block_bytes))
        self._spec = served.spec
        self._weights = load_weights(path, self._spec, torch.device("cpu"), find_kernels(torch.get_num_threads()))
        self._kv = PagedKV(pool_tensor(buffer, layout, num_blocks), layout)
        self._rope = RopeTable(self._spec.rope, self._spec.head_dim, WINDOW, torch.device("cpu"))
        self._blocks = tuple(range(num_blocks))
        self.cos = self._rope.cos

    def __call__(self, ids: Tensor) -> tuple[Tensor, None]:
        """Logits ``[1, T, vocab]`` of ``ids [1, T]``, and no cache."""
        tokens = tuple(ids[0].tolist())
        request = GenerationRequest(RequestId("text"), ModelId(""), TenantId(""), tokens, Stopping(1))
        part = Slice(request, tokens, 0, self._blocks, 0, ())
        batch = BatchBuilder(self._kv, self._spec.windows, self._weights.dtype).build((part,))
        every = replace(batch, sample_rows=torch.arange(len(tokens)))
        return forward(every, self._weights, self._spec, {self._spec.rope: self._rope}, self._kv)[None].float(), None


def evaluate(model: str, formats: Sequence[StoredFormat], num_files: int, cache_dir: Path) -> None:
    """Print a line for each format."""
    tokenizer = Tokenizer.from_file(str(locate(model) / "tokenizer.json"))
    files = split_corpus(read_corpus(Path(sysconfig.get_path("stdlib"))))[1][:num_files]
    documents = encode_files(tokenizer, files)
    num_bytes = sum(len(file.text.encode()) for file in files)
    sample = torch.tensor([[int(token) for document in documents for token in document][:2000]])
    first: tuple[float, Tensor] | None = None
    for weights in formats:
        scorer: Any = Scorer(model, weights, cache_dir)
        bits, logits = held_out_bits(scorer, documents, num_bytes, WINDOW, STRIDE), scorer(sample)[0]
        first = first or (bits, logits)
        more, distance = bits / first[0] - 1, float((logits - first[1]).abs().max())
        print(f"{weights}: {bits:.4f} bits per byte, {more:+.2%}; largest distance of a logit {distance:.2f}")


def main() -> None:
    """Evaluate what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = [name for group in get_args(StoredFormat) for name in get_args(group) or (group,)]
    parser.add_argument(
        "--formats", nargs="+", choices=choices, default=["bf16", "int8", "int4"], help="the first rules"
    )
    parser.add_argument("--model", default=DEMO, help="a directory or a Hugging Face id (default: %(default)s)")
    parser.add_argument("--files", type=int, default=100, help="held-out files, at most (default: all)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        evaluate(options.model, options.formats, options.files, Path(folder))


if __name__ == "__main__":
    main()
