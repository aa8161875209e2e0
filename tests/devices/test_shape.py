"""What a shape costs: published figures of weights and KV, and laws that hold for any shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.devices.model_config import load_shape, shape_names
from twinfer.devices.shape import PRECISIONS, Experts, ModelShape

MODELS = st.sampled_from(shape_names()).map(load_shape)
LENGTHS = st.integers(1, 200_000)


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [
        ("gpt-oss-120b", 116.8, 5.1),
        ("gpt-oss-20b", 20.9, 3.6),
        ("llama-3.1-8b", 8.03, 7.5),
        ("llama-3.1-70b", 70.6, 69.5),
        ("llama-3.1-405b", 405.9, 403.8),
        ("qwen3-8b", 8.19, 7.57),
        ("qwen3-32b", 32.8, 32.0),
        ("qwen3-30b-a3b", 30.5, 3.3),
        ("qwen3-235b-a22b", 235, 22),
        ("qwen3-coder-480b", 480, 35),
        ("deepseek-v3", 671, 37),
        ("qwen2.5-0.5b", 0.494, 0.494),
        ("qwen2.5-7b", 7.62, 7.07),
    ],
)
def test_parameters(name: str, billions: float, active: float) -> None:
    """As published; what is active within 10 %, since some count the look-up of embeddings and others do not."""
    shape = load_shape(name)
    assert billions == pytest.approx(shape.parameters / 1e9, rel=0.005)
    assert active == pytest.approx(shape.active_parameters / 1e9, rel=0.1)


@pytest.mark.parametrize(
    ("name", "kib", "gb"),
    [
        ("llama-3.1-8b", 128, (1.07, 4.29, 17.2)),
        ("llama-3.1-70b", 320, (2.68, 10.7, 42.9)),
        ("llama-3.1-405b", 504, (4.23, 16.9, 67.6)),
        ("qwen3-8b", 144, (1.21, 4.83, 19.3)),
        ("qwen3-32b", 256, (2.15, 8.59, 34.4)),
        ("qwen3-30b-a3b", 96, (0.81, 3.22, 12.9)),
        ("qwen3-235b-a22b", 188, (1.58, 6.31, 25.2)),
        ("qwen3-coder-480b", 248, (2.08, 8.32, 33.3)),
        ("gpt-oss-120b", 72, (0.31, 1.21, 4.8)),
        ("gpt-oss-20b", 48, (0.20, 0.81, 3.2)),
        ("deepseek-v3", 68.6, (0.58, 2.30, 9.2)),
    ],
)
def test_kv(name: str, kib: float, gb: tuple[float, float, float]) -> None:
    """KV of one token, and of contexts of 8k, 32k and 128k, in 16 bits."""
    shape = load_shape(name)
    assert kib == pytest.approx(shape.kv_bytes_per_token() / 1024, rel=0.001)
    assert list(gb) == [pytest.approx(shape.kv_bytes(n) / 1e9, rel=0.03) for n in (8192, 32768, 131072)]


@pytest.mark.parametrize(
    ("name", "precision", "gb"),
    [
        ("llama-3.1-8b", "bf16", 16),
        ("llama-3.1-70b", "bf16", 141),
        ("llama-3.1-405b", "bf16", 812),
        ("qwen3-32b", "bf16", 66),
        ("qwen3-235b-a22b", "bf16", 470),
        ("qwen3-coder-480b", "bf16", 960),
        ("gpt-oss-120b", "bf16", 234),
        ("gpt-oss-120b", "mxfp4", 65.3),
        ("gpt-oss-20b", "mxfp4", 13.8),
        ("deepseek-v3", "fp8", 673),
    ],
)
def test_weights(name: str, precision: str, gb: float) -> None:
    """Sizes of published checkpoints; gpt-oss-120b's is 60.8 GiB."""
    shape = load_shape(name)
    assert gb == pytest.approx(shape.weight_bytes(next(p for p in PRECISIONS if p == precision)) / 1e9, rel=0.02)


def test_a_window_stops_growing() -> None:
    """Half of gpt-oss' layers keep 128 positions: 36 KiB per token and 4.5 MiB."""
    shape = load_shape("gpt-oss-120b")
    assert 36 * 1024 == shape.kv_bytes(10_001) - shape.kv_bytes(10_000)
    assert 4.5 * 2**20 == shape.kv_bytes(10_000) - 10_000 * 36 * 1024


def test_kv_heads_are_repeated_over_too_many_devices() -> None:
    """Four heads on eight devices are held twice; one latent vector is held by each."""
    assert (2.0, 1.0) == (load_shape("qwen3-235b-a22b").kv_copies(8), load_shape("llama-3.1-8b").kv_copies(8))
    assert 4.0 == load_shape("deepseek-v3").kv_copies(4)


@given(MODELS, LENGTHS, LENGTHS)
def test_kv_never_shrinks_and_never_beats_full_attention(shape: ModelShape, first: int, second: int) -> None:
    """More context is no less KV, and windows only save."""
    low, high = sorted((first, second))
    assert shape.kv_bytes(low) <= shape.kv_bytes(high) <= high * shape.kv_bytes_per_token()


@given(MODELS, st.integers(2, 20_000), st.integers(2, 20_000), st.integers(0, 50_000))
def test_chunks_cost_as_much_as_the_whole(shape: ModelShape, first: int, second: int, context: int) -> None:
    """Attention of a prompt in two chunks is that of the prompt at once, windows or not."""
    whole = shape.attention_flops(first + second, context)
    parts = shape.attention_flops(first, context) + shape.attention_flops(second, context + first)
    assert whole == pytest.approx(parts, rel=1e-9)


@given(MODELS, st.integers(1, 300), st.integers(0, 400))
def test_attention_is_counted_position_by_position(shape: ModelShape, new: int, context: int) -> None:
    """The closed form equals the sum over positions that layers of either kind attend to."""
    full = sum(context + i + 1 for i in range(new))
    windowed = sum(min(context + i + 1, shape.window_tokens) for i in range(new))
    pairs = (shape.num_layers - shape.windowed_layers) * full + shape.windowed_layers * windowed
    one = shape.attention_flops(1, 0) if new == 1 else shape.attention_flops(2, 0) / 3
    assert shape.attention_flops(new, context) == pytest.approx(one / shape.num_layers * pairs, rel=1e-9)


@given(MODELS, st.sampled_from(PRECISIONS), st.integers(1, 4096), st.integers(1, 4096))
def test_more_tokens_touch_more_weights_up_to_all(shape: ModelShape, precision: str, first: int, second: int) -> None:
    """Experts that are chosen by some token are read once; no step reads more than there is, tied heads apart."""
    chosen = next(p for p in PRECISIONS if p == precision)
    low, high = sorted((first, second))
    read = [shape.read_weight_bytes(chosen, tokens) for tokens in (low, high)]
    assert read == sorted(read)
    assert read[1] <= shape.weight_bytes(chosen)


@given(st.integers(1, 512), st.data())
def test_distinct_experts(number: int, data: st.DataObject) -> None:
    """One token goes through its own; many through no more than there are."""
    per_token = data.draw(st.integers(1, number))
    experts = Experts(number, per_token, 1)
    assert per_token == pytest.approx(experts.distinct(1))
    assert number == pytest.approx(experts.distinct(100_000), rel=1e-6)
    assert experts.distinct(7) <= min(number, 7 * per_token) * (1 + 1e-9)


@given(MODELS, st.integers(1, 10_000))
def test_one_token_costs_two_operations_per_active_weight(shape: ModelShape, tokens: int) -> None:
    """Layers for every token, the head for each that is drawn."""
    assert 2.0 * shape.active_parameters == shape.linear_flops(1)
    assert 2.0 * shape.active_parameters * tokens == pytest.approx(shape.linear_flops(tokens, draws=tokens))
    assert shape.expert_flops(tokens) < shape.linear_flops(tokens)
