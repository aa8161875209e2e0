"""transformers on the same torch: one forward pass per step, with its own cache of keys and values."""

import time

import torch
from transformers import AutoModelForCausalLM

from bench.engines.protocol import arguments, measure


class TransformersBench:
    """A causal model in bf16. Whoever is timed has seen the last token: on a GPU work would be under way else."""

    def __init__(self, checkpoint: str, device: str) -> None:
        self._device = device
        self._model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).eval().to(device)

    def prefill(self, prompt: list[int]) -> float:
        """See ``Bench``."""
        start = time.perf_counter()
        self._model(self._tensor([prompt]), use_cache=True, logits_to_keep=1).logits.argmax().item()
        return time.perf_counter() - start

    def decode(self, prompts: list[list[int]], steps: int) -> float:
        """See ``Bench``."""
        answer = self._model(self._tensor(prompts), use_cache=True, logits_to_keep=1)
        answer.logits.argmax().item()
        start = time.perf_counter()
        for _ in range(steps):
            tokens = answer.logits[:, -1:].argmax(-1)
            answer = self._model(tokens, past_key_values=answer.past_key_values, use_cache=True)
        answer.logits.argmax().item()
        return time.perf_counter() - start

    def _tensor(self, prompts: list[list[int]]) -> torch.Tensor:
        return torch.tensor(prompts, device=self._device)


if __name__ == "__main__":
    asked = arguments(__doc__)
    torch.set_num_threads(asked.threads)
    with torch.inference_mode():
        measure(TransformersBench(asked.checkpoint, asked.device), asked.repeats, asked.batches)
