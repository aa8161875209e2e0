"""vLLM for CPUs, offline: its engine and scheduler, without its server. Prefix caching is off."""

import os
import time

from bench.engines.protocol import CONTEXT_TOKENS, DECODE_STEPS, PREFILL_TOKENS, arguments, measure

asked = arguments(__doc__)
os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{asked.threads - 1}" if asked.threads > 1 else "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
}

from vllm import LLM, SamplingParams, TokensPrompt  # noqa: E402


class VllmBench:
    """An engine that answers whole batches: the time of some steps is that of twice as many, less that of as many."""

    def __init__(self, checkpoint: str) -> None:
        self._llm = LLM(
            checkpoint,
            dtype="bfloat16",
            max_model_len=2 * max(PREFILL_TOKENS, CONTEXT_TOKENS + 2 * DECODE_STEPS),
            max_num_seqs=max(asked.batches),
            enable_prefix_caching=False,
            skip_tokenizer_init=True,
        )

    def prefill(self, prompt: list[int]) -> float:
        """See ``Bench``."""
        return self._generate([prompt], 1)

    def decode(self, prompts: list[list[int]], steps: int) -> float:
        """See ``Bench``."""
        shorter = self._generate(prompts, steps + 1)
        return self._generate(prompts, 2 * steps + 1) - shorter

    def _generate(self, prompts: list[list[int]], num_tokens: int) -> float:
        sampling = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True, detokenize=False)
        start = time.perf_counter()
        self._llm.generate([TokensPrompt(prompt_token_ids=prompt) for prompt in prompts], sampling, use_tqdm=False)
        return time.perf_counter() - start


if __name__ == "__main__":
    measure(VllmBench(asked.checkpoint), asked.repeats, asked.batches)
