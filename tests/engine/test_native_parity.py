"""The whole native engine against transformers: batches, chunks, prefix hits and preemption, for every family."""

import random
from pathlib import Path

import msgspec
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import TinyCheckpoints
from tests.engine.places import Place
from tests.fakes import KEY, MODEL, POOL, a_request
from tests.model.test_parity import FAMILIES, NUM_TOKENS, reference
from twinfer.core.clock import MonotonicClock
from twinfer.engine.assemble import assemble
from twinfer.engine.native import native_capabilities, native_model, native_runner
from twinfer.engine.paged import PagedEngine

pytestmark = pytest.mark.torch

HOST: Place = ("cpu", native_runner)


def an_engine(
    directory: Path,
    cache_dir: Path,
    num_blocks: int,
    max_step_tokens: int = 24,
    filled_with: bytes = b"\0",
    place: Place = HOST,
) -> PagedEngine:
    """A native engine with few blocks and small chunks, on the device that ``place`` names."""
    model = msgspec.structs.replace(MODEL, source=str(directory))
    pool = msgspec.structs.replace(POOL, engine="native", weights="fp32", max_step_tokens=max_step_tokens)
    device, make_runner = place
    served = native_model(model, pool, cache_dir)
    capabilities = msgspec.structs.replace(
        native_capabilities(served, model, pool), num_blocks=num_blocks, max_context_tokens=num_blocks * 4
    )
    memory = memoryview(bytearray(filled_with * (num_blocks * capabilities.layout.block_bytes)))
    runner = make_runner(served, capabilities, device, memory, cache_dir)
    return assemble(pool, capabilities, runner, KEY, MonotonicClock())


def answers(engine: PagedEngine, prompts: list[list[int]]) -> list[list[int]]:
    """All prompts at once."""
    output: dict[str, list[int]] = {str(index): [] for index in range(len(prompts))}
    for index, prompt in enumerate(prompts):
        engine.submit(a_request(prompt, NUM_TOKENS, str(index)))
    while (outcome := engine.step()) is not None:
        assert not outcome.failed
        for token in outcome.tokens:
            output[token.request_id].append(token.token_id)
    return list(output.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_same_tokens_as_transformers(family: str, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """In mixed batches with chunked prefill, again with prefix hits, and with blocks for less than all of them."""
    shape, changes = FAMILIES[family]
    check_answers(tiny(shape, **changes), cache_dir, HOST)


def check_answers(directory: Path, cache_dir: Path, place: Place) -> None:
    """Of a checkpoint in a place, against transformers' on the CPU."""
    numbers = random.Random(5)
    prompts = [[numbers.randrange(4096) for _ in range(length)] for length in (3, 16, 29, 50)]
    oracle = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")

    roomy = an_engine(directory, cache_dir, 128, place=place)
    expected = answers(roomy, prompts)
    pairs = zip(prompts, expected, strict=True)
    assert expected == [reference(oracle, prompt, answer)[0] for prompt, answer in pairs]
    assert roomy.load().counters.cached_tokens == 0
    assert expected == answers(roomy, prompts)
    assert roomy.load().counters.cached_tokens == 12 + 28 + 48

    tight = an_engine(directory, cache_dir, 17 if roomy.capabilities.sight_tokens else 36, place=place)
    assert expected == answers(tight, prompts)
    assert tight.load().counters.preemptions > 0


@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-mistral", "tiny-gpt-oss"])
@pytest.mark.parametrize("max_step_tokens", [24, 4])
def test_what_blocks_held_before_spoils_nothing(
    shape: str, max_step_tokens: int, tiny: TinyCheckpoints, cache_dir: Path
) -> None:
    """Were it not a number; also where decoding leaves a prompt chunks of one token."""
    numbers = random.Random(5)
    prompts = [[numbers.randrange(4096) for _ in range(length)] for length in (3, 16, 29, 50)]
    expected = answers(an_engine(tiny(shape), cache_dir, 128), prompts)
    spoilt = an_engine(tiny(shape), cache_dir, 128, max_step_tokens, filled_with=b"\xff")
    assert expected == answers(spoilt, prompts)
