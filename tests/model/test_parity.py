"""The same greedy tokens as transformers, for every family, however the work is cut into steps."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import TinyCheckpoints
from tests.model.driver import Driver, make_request
from twinfer.core.step import Draw

pytestmark = pytest.mark.torch

NUM_TOKENS = 16
MXFP4 = {"quant_method": "mxfp4", "dequantize": True}
"""On a CPU transformers computes with the numbers, as we do."""
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("tiny-llama", {}),
    "llama with biases and linear rope": (
        "tiny-llama",
        {"attention_bias": True, "rope_scaling": {"type": "linear", "factor": 4.0}},
    ),
    "llama with llama3 rope": ("tiny-llama3", {}),
    "mistral with a window": ("tiny-mistral", {}),
    "qwen2": ("tiny-qwen2", {}),
    "qwen2 with windows in some layers": (
        "tiny-qwen2",
        {"use_sliding_window": True, "sliding_window": 10, "max_window_layers": 1},
    ),
    "qwen3": ("tiny-qwen3", {}),
    "llama with yarn": ("tiny-llama", {"rope_scaling": YARN}),
    "llama with yarn of transformers 5": (
        "tiny-llama",
        {"rope_parameters": YARN | {"rope_theta": 20000.0, "mscale": 1.3, "mscale_all_dim": 0.7, "truncate": False}},
    ),
    "llama with dynamic rope": ("tiny-llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    "mixtral": ("tiny-mixtral", {}),
    "mixtral with a window": ("tiny-mixtral", {"sliding_window": 24}),
    "qwen2 moe": ("tiny-qwen2-moe", {}),
    "qwen2 moe with shares that add up": ("tiny-qwen2-moe", {"norm_topk_prob": True, "qkv_bias": False}),
    "qwen2 moe with windows in some layers": (
        "tiny-qwen2-moe",
        {"use_sliding_window": True, "sliding_window": 10, "max_window_layers": 2},
    ),
    "qwen3 moe with a window": ("tiny-qwen3-moe", {"use_sliding_window": True, "sliding_window": 24}),
    "qwen3 moe": ("tiny-qwen3-moe", {}),
    "qwen3 moe with dense layers": (
        "tiny-qwen3-moe",
        {"num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [1], "norm_topk_prob": False},
    ),
    "gpt-oss": ("tiny-gpt-oss", {}),
    "gpt-oss in mxfp4": ("tiny-gpt-oss", {"quantization_config": MXFP4}),
    "gemma2": ("tiny-gemma2", {}),
    "gemma3": ("tiny-gemma3", {}),
    "phi3": ("tiny-phi3", {}),
}


@dataclass(frozen=True)
class Case:
    """A checkpoint with prompts of mixed lengths, answered in one batch, and what transformers answers to them."""

    driver: Driver
    prompts: list[list[int]]
    draws: list[list[Draw]]
    expected: list[list[int]]
    logprobs: list[list[float]]
    """Of the expected tokens."""


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tiny: TinyCheckpoints, cache_dir: Path) -> Case:
    """One family."""
    shape, changes = FAMILIES[request.param]
    directory = tiny(shape, **changes)
    numbers = random.Random(3)
    prompts = [[numbers.randrange(4096) for _ in range(length)] for length in (1, 7, 8, 31, 90)]
    driver = Driver(directory, cache_dir)
    draws = driver.generate([make_request(str(i), each, top_logprobs=0) for i, each in enumerate(prompts)], NUM_TOKENS)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    references = [reference(model, prompt, answer) for prompt, answer in zip(prompts, tokens_of(draws), strict=True)]
    return Case(driver, prompts, draws, *map(list, zip(*references, strict=True)))


def tokens_of(draws: list[list[Draw]]) -> list[list[int]]:
    """Their ids."""
    return [[draw.token_id for draw in each] for each in draws]


def reference(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> tuple[list[int], list[float]]:
    """The tokens that transformers likes best after the prompt and after each token of an answer but the last, and
    their log probabilities: for an answer that is transformers' own greedy one these are its tokens, and for no other.
    """
    with torch.inference_mode():
        rows = model(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :].log_softmax(dim=-1)
    best = rows.max(dim=-1)
    return best.indices.tolist(), best.values.tolist()


def test_batch(case: Case) -> None:
    """All prompts in one batch give transformers' tokens. The numbers themselves are the same but for rounding, so
    nothing that keeps the best token best is forgotten."""
    assert case.expected == tokens_of(case.draws)
    for expected, draws in zip(case.logprobs, case.draws, strict=True):
        assert pytest.approx(expected, abs=1e-4) == [draw.logprob for draw in draws]


def test_single(case: Case) -> None:
    """So does each prompt alone."""
    assert case.expected == [case.driver.greedy([prompt], NUM_TOKENS)[0] for prompt in case.prompts]


@pytest.mark.parametrize("chunk", [13, 1])
def test_chunks(case: Case, chunk: int) -> None:
    """So do all of them in chunks that start anywhere in a block."""
    assert case.expected == case.driver.greedy(case.prompts, NUM_TOKENS, chunk)


def test_staggered(case: Case) -> None:
    """So do prompts that join while others decode, so that a step mixes both."""
    assert case.expected == case.driver.staggered(case.prompts, NUM_TOKENS, chunk=20)


@pytest.mark.parametrize(("context", "length"), [(64, 1), (64, 48), (512, 65), (512, 90)])
def test_longrope(tiny: TinyCheckpoints, cache_dir: Path, context: int, length: int) -> None:
    """Served for no more than the original context, the short divisors hold, else the long ones; transformers goes by
    the sequence, so they agree on sequences on one side."""
    divisors = {"short_factor": [1.0, 1.1, 1.3, 1.6], "long_factor": [1.0, 2.0, 4.0, 8.0]}
    changes = {"original_max_position_embeddings": 64, "rope_scaling": {"type": "longrope", **divisors}}
    directory = tiny("tiny-phi3", **changes)
    prompt = random.Random(4).choices(range(4096), k=length)
    oracle = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    driver = Driver(directory, cache_dir, max_context_tokens=context)
    answer = driver.greedy([prompt], NUM_TOKENS, chunk=13)[0]
    assert reference(oracle, prompt, answer)[0] == answer
