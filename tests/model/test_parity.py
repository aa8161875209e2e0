"""The same greedy tokens as transformers, for every family, however the work is cut into steps."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import TinyCheckpoints
from tests.model.driver import Driver, make_request

pytestmark = pytest.mark.torch

NUM_TOKENS = 24
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
    """A checkpoint with prompts of mixed lengths and what transformers answers to them."""

    driver: Driver
    prompts: list[list[int]]
    expected: list[list[int]]
    logprobs: list[float]
    """Of the last prompt's expected tokens."""


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tiny: TinyCheckpoints, cache_dir: Path) -> Case:
    """One family."""
    shape, changes = FAMILIES[request.param]
    directory = tiny(shape, **changes)
    numbers = random.Random(3)
    prompts = [[numbers.randrange(4096) for _ in range(length)] for length in (1, 7, 8, 31, 90)]
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    expected = [reference(model, prompt) for prompt in prompts]
    return Case(Driver(directory, cache_dir), prompts, expected, logprobs(model, prompts[-1], expected[-1]))


def reference(model: torch.nn.Module, prompt: list[int]) -> list[int]:
    """What transformers answers, greedily."""
    ids = torch.tensor([prompt])
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "max_new_tokens": NUM_TOKENS}
    output = model.generate(ids, attention_mask=torch.ones_like(ids), **options)  # type: ignore[operator]
    return output[0, len(prompt) :].tolist()


def logprobs(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> list[float]:
    """What transformers gives the tokens of an answer."""
    with torch.inference_mode():
        rows = model(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :].log_softmax(dim=-1)
    return rows.gather(1, torch.tensor(answer)[:, None]).flatten().tolist()


def test_single(case: Case) -> None:
    """Each prompt alone gives transformers' tokens."""
    assert case.expected == [case.driver.greedy([prompt], NUM_TOKENS)[0] for prompt in case.prompts]


@pytest.mark.parametrize("chunk", [1000, 13, 1])
def test_batch(case: Case, chunk: int) -> None:
    """So do all prompts in one batch, whole or in chunks that start anywhere in a block."""
    assert case.expected == case.driver.greedy(case.prompts, NUM_TOKENS, chunk)


def test_staggered(case: Case) -> None:
    """So do prompts that join while others decode, so that a step mixes both."""
    assert case.expected == case.driver.staggered(case.prompts, NUM_TOKENS, chunk=20)


def test_logprobs(case: Case) -> None:
    """The numbers themselves are the same but for rounding, so nothing that keeps the best token best is forgotten."""
    draws = case.driver.generate([make_request("r", case.prompts[-1], top_logprobs=0)], NUM_TOKENS)[0]
    assert pytest.approx(case.logprobs, abs=1e-4) == [draw.logprob for draw in draws]


@pytest.mark.parametrize(("context", "length"), [(64, 1), (64, 40), (512, 65), (512, 90)])
def test_longrope(tiny: TinyCheckpoints, cache_dir: Path, context: int, length: int) -> None:
    """Served for no more than the original context, the short divisors hold, else the long ones; transformers goes by
    the sequence, so they agree on sequences on one side."""
    divisors = {"short_factor": [1.0, 1.1, 1.3, 1.6], "long_factor": [1.0, 2.0, 4.0, 8.0]}
    changes = {"original_max_position_embeddings": 64, "rope_scaling": {"type": "longrope", **divisors}}
    directory = tiny("tiny-phi3", **changes)
    prompt = random.Random(4).choices(range(4096), k=length)
    oracle = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    driver = Driver(directory, cache_dir, max_context_tokens=context)
    assert reference(oracle, prompt) == driver.greedy([prompt], NUM_TOKENS, chunk=13)[0]
