"""The native engine on devices other than the CPU."""

import random
from pathlib import Path

import msgspec
import pytest
import torch

from tests.conftest import TinyCheckpoints
from tests.engine.places import CUDA, PLACES, STAND_IN, Place, needs_cuda, stand_in
from tests.engine.test_native_parity import an_engine, answers, check_answers
from tests.fakes import MODEL, POOL
from tests.model.test_parity import FAMILIES
from twinfer.core.errors import ConfigError
from twinfer.engine.native import native_capabilities, native_model, native_runner

pytestmark = pytest.mark.torch

SOME = ("llama", "qwen2 with windows in some layers", "mistral with a window", "qwen3 moe", "gemma2")


@pytest.mark.parametrize(
    ("family", "place"),
    [
        *((family, STAND_IN) for family in SOME),
        *(pytest.param(family, CUDA, marks=needs_cuda) for family in FAMILIES),
    ],
)
def test_same_tokens_as_transformers(family: str, place: Place, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """In mixed batches with chunked prefill, again with prefix hits, and with blocks for less than all of them."""
    shape, changes = FAMILIES[family]
    check_answers(tiny(shape, **changes), cache_dir, place)


@pytest.mark.parametrize("place", PLACES)
def test_same_tokens_as_on_the_cpu(place: Place, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """With more sequences than there are blocks for, which come and go in every step."""
    numbers = random.Random(11)
    prompts = [[numbers.randrange(4096) for _ in range(numbers.randrange(1, 60))] for _ in range(12)]
    expected = answers(an_engine(tiny("tiny-llama"), cache_dir, 64), prompts)
    assert expected == answers(an_engine(tiny("tiny-llama"), cache_dir, 64, 16, place=place), prompts)


@pytest.mark.parametrize("place", PLACES)
def test_blocks_are_staged(place: Place, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Blocks come and go between device and host whole, only when they are asked for, and no others with them."""
    model = msgspec.structs.replace(MODEL, source=str(tiny("tiny-llama")))
    pool = msgspec.structs.replace(POOL, engine="native", weights="fp32")
    served = native_model(model, pool, cache_dir)
    capabilities = msgspec.structs.replace(native_capabilities(served, model, pool), num_blocks=8)
    size = capabilities.layout.block_bytes
    memory = memoryview(bytearray(8 * size))
    device, make_runner = place
    runner = make_runner(served, capabilities, device, memory, cache_dir)
    written = random.Random(0).randbytes(2 * size)
    memory[3 * size : 5 * size] = written
    runner.from_host([3])
    memory[3 * size : 5 * size] = bytes(2 * size)
    runner.to_host([3, 4])
    assert written[:size] == bytes(memory[3 * size : 4 * size])
    assert not any(memory[: 3 * size])
    assert not any(memory[4 * size :])


@pytest.mark.parametrize("device", ["cuda:0", "cuda", "cuda:99", "gpu", "cuda:x"])
def test_a_device_that_cannot_be_used(device: str, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """One sentence names the device, torch's reason and what else there is; no weight has been read by then."""
    if device in ("cuda:0", "cuda") and torch.cuda.is_available():
        pytest.skip("there is one")
    model = msgspec.structs.replace(MODEL, source=str(tiny("tiny-llama")))
    pool = msgspec.structs.replace(POOL, engine="native", weights="fp32", device=device)
    served = native_model(model, pool, cache_dir)
    capabilities = native_capabilities(served, model, pool)
    with pytest.raises(ConfigError) as raised:
        native_runner(served, capabilities, device, memoryview(b""), cache_dir)
    message = str(raised.value)
    assert message.startswith(f"device '{device}' cannot be used: ")
    assert message.endswith("; 'twinfer doctor' lists those that can, and \"cpu\" always can")
    assert "\n" not in message


def test_too_little_memory(tiny: TinyCheckpoints, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says what to lower."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 16.00 GiB.")

    monkeypatch.setattr("twinfer.engine.native.load_runner", full)
    model = msgspec.structs.replace(MODEL, source=str(tiny("tiny-llama")))
    pool = msgspec.structs.replace(POOL, engine="native", weights="fp32")
    served = native_model(model, pool, cache_dir)
    capabilities = msgspec.structs.replace(native_capabilities(served, model, pool), num_blocks=8)
    memory = memoryview(bytearray(8 * capabilities.layout.block_bytes))
    with pytest.raises(ConfigError, match="cannot hold the weights and 0 MiB of KV; lower kv_mib"):
        native_runner(served, capabilities, "cpu", memory, cache_dir)


def test_the_stand_in_is_one(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """It does have a pool of its own with one block more, and fixed steps."""
    model = msgspec.structs.replace(MODEL, source=str(tiny("tiny-llama")))
    pool = msgspec.structs.replace(POOL, engine="native", weights="fp32")
    served = native_model(model, pool, cache_dir)
    capabilities = msgspec.structs.replace(native_capabilities(served, model, pool), num_blocks=8)
    memory = memoryview(bytearray(8 * capabilities.layout.block_bytes))
    runner = stand_in(served, capabilities, "cuda", memory, cache_dir)
    step = runner._runner._captured_step
    assert (9, 8) == (len(runner._pool), len(runner._host))
    assert step is not None
    assert len(step.recorded) == 1
