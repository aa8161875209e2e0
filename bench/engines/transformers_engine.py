"""transformers on the same torch: one forward pass per step, with its own cache of keys and values."""

import time

import torch
from transformers import AutoModelForCausalLM

from bench.engines.protocol import arguments, measure


class TransformersBench:
    """A causal model in bf16."""

    def __init__(self, checkpoint: str) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).eval()

    def prefill(self, prompt: list[int]) -> float:
        """See ``Bench``."""
        start = time.perf_counter()
        self._model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1).logits.argmax()
        return time.perf_counter() - start

    def decode(self, prompts: list[list[int]], steps: int) -> float:
        """See ``Bench``."""
        answer = self._model(torch.tensor(prompts), use_cache=True, logits_to_keep=1)
        start = time.perf_counter()
        for _ in range(steps):
            tokens = answer.logits[:, -1:].argmax(-1)
            answer = self._model(tokens, past_key_values=answer.past_key_values, use_cache=True)
        return time.perf_counter() - start


if __name__ == "__main__":
    asked = arguments(__doc__)
    torch.set_num_threads(asked.threads)
    with torch.inference_mode():
        measure(TransformersBench(asked.checkpoint), asked.repeats, asked.batches)
