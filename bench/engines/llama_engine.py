"""llama.cpp through its low-level API: one llama_decode per step, greedy."""

import ctypes
import sys
import time
from pathlib import Path

import llama_cpp
import numpy as np

from bench.engines.gguf_file import write_gguf
from bench.engines.protocol import CONTEXT_TOKENS, DECODE_STEPS, PREFILL_TOKENS, arguments, measure

QUANTISED = {"int8": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "int4": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}


def model_file(checkpoint: str, precision: str) -> Path:
    """The checkpoint as GGUF in this precision, beside this environment; made when it is not there or older."""
    directory = Path(sys.prefix) / "models"
    directory.mkdir(exist_ok=True)
    source = Path(checkpoint)
    plain, wanted = (directory / f"{source.name}-{name}.gguf" for name in ("bf16", precision))
    made_from = [path for name in ("model.safetensors", "tokenizer.json") if (path := source / name).exists()]
    if not plain.exists() or plain.stat().st_mtime < max(path.stat().st_mtime for path in made_from):
        write_gguf(source, plain)
    if not wanted.exists() or wanted.stat().st_mtime < plain.stat().st_mtime:
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = QUANTISED[precision]
        if llama_cpp.llama_model_quantize(str(plain).encode(), str(wanted).encode(), ctypes.byref(options)):
            raise SystemExit(f"llama.cpp could not quantise {plain}")
    return wanted


class LlamaBench:
    """A model with one context."""

    def __init__(self, path: Path, threads: int, sequences: int) -> None:
        loading = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), loading)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = max(PREFILL_TOKENS + 1, sequences * (CONTEXT_TOKENS + DECODE_STEPS + 1))
        options.n_batch = options.n_ubatch = max(PREFILL_TOKENS, sequences * CONTEXT_TOKENS)
        options.n_seq_max = sequences
        options.kv_unified = True
        options.n_threads = options.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(options.n_batch, 0, 1)

    def prefill(self, prompt: list[int]) -> float:
        """See ``Bench``."""
        self._forget()
        start = time.perf_counter()
        self._compute([prompt], 0)
        return time.perf_counter() - start

    def decode(self, prompts: list[list[int]], steps: int) -> float:
        """See ``Bench``."""
        self._forget()
        tokens = self._compute(prompts, 0)
        start = time.perf_counter()
        for step in range(steps):
            tokens = self._compute([[token] for token in tokens], len(prompts[0]) + step)
        return time.perf_counter() - start

    def _forget(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def _compute(self, pieces: list[list[int]], position: int) -> list[int]:
        """Compute each sequence's next tokens; the token drawn after each."""
        batch, count, ends = self._batch, 0, []
        for sequence, piece in enumerate(pieces):
            for offset, token in enumerate(piece):
                batch.token[count] = token
                batch.pos[count] = position + offset
                batch.n_seq_id[count] = 1
                batch.seq_id[count][0] = sequence
                batch.logits[count] = offset == len(piece) - 1
                count += 1
            ends.append(count - 1)
        batch.n_tokens = count
        if llama_cpp.llama_decode(self._context, batch):
            raise SystemExit("llama.cpp could not compute a batch")
        rows = (llama_cpp.llama_get_logits_ith(self._context, end) for end in ends)
        return [int(np.ctypeslib.as_array(row, (self._vocab_size,)).argmax()) for row in rows]


@llama_cpp.llama_log_callback
def quiet(level: int, text: bytes, data: object) -> None:
    """Say nothing."""


if __name__ == "__main__":
    asked = arguments(__doc__)
    llama_cpp.llama_log_set(quiet, None)
    llama_cpp.llama_backend_init()
    file = model_file(asked.checkpoint, asked.precision)
    measure(LlamaBench(file, asked.threads, max(asked.batches)), asked.repeats, asked.batches)
