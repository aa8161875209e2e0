"""Whether a model fits: published and derived counts of wafers and users, and the account's own laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.fit import fit, max_sequences, usable_bytes
from twinfer.devices.model_config import load_shape, shape_names
from twinfer.devices.placement import Placement
from twinfer.devices.profile import Device
from twinfer.devices.shape import Precision

CATALOGUE = Catalogue()
CS3 = CATALOGUE.device("cs3")[0]
H200 = CATALOGUE.device("h200")[0]
DEVICES = [CATALOGUE.device(name)[0] for name in ("cs3", "h200", "trn3", "groq-lpu", "xeon-amx")]


@pytest.mark.parametrize(
    ("model", "precision", "wafers"),
    [
        ("gpt-oss-120b", "mxfp4", 2),
        ("gpt-oss-120b", "bf16", 7),
        ("llama-3.1-70b", "bf16", 4),
        ("qwen3-235b-a22b", "bf16", 13),
        ("llama-3.1-405b", "bf16", 22),
    ],
)
def test_wafers_for_the_weights(model: str, precision: Precision, wafers: int) -> None:
    """With 15 % of the SRAM reserved; Cerebras says 4 for 70B in 16 bits."""
    assert wafers == fit(CS3, load_shape(model), Placement(precision=precision)).devices_needed


@pytest.mark.parametrize(
    ("model", "precision", "wafers", "users"),
    [
        ("gpt-oss-120b", "mxfp4", 4, (287, 72, 24)),
        ("llama-3.1-70b", "bf16", 8, (59, 15, 5)),
        ("llama-3.1-405b", "bf16", 44, (197, 49, 17)),
    ],
)
def test_users_on_wafers(model: str, precision: Precision, wafers: int, users: tuple[int, int, int]) -> None:
    """At 8k, 32k and 96k, within a tenth or one."""
    placement = Placement(wafers, precision=precision)
    found = [max_sequences(CS3, load_shape(model), placement, tokens) for tokens in (8192, 32768, 98304)]
    assert list(users) == [pytest.approx(number, rel=0.1, abs=1) for number in found]


def test_the_account_is_one_sentence() -> None:
    """How much too much, and where it would fit."""
    shape = load_shape("gpt-oss-120b")
    assert (
        "gpt-oss-120b does not fit on 1 x cs3: 65.2 GB of weights are 27.8 GB more than the 37.4 GB there; "
        "it would on 2"
    ) == str(fit(CS3, shape, Placement(precision="mxfp4")))
    assert "gpt-oss-120b fits on 1 x h200: 65.2 GB of weights and 0.307 GB of KV in 138 GB" == str(
        fit(H200, shape, Placement(precision="mxfp4"), [8192])
    )


def test_repeated_heads_take_room() -> None:
    """Four KV heads over eight devices are held twice."""
    shape = load_shape("qwen3-30b-a3b")
    four, eight = (fit(H200, shape, Placement(n, n), [1000]).kv_bytes for n in (4, 8))
    assert 2 * four == eight


@given(
    st.sampled_from(DEVICES),
    st.sampled_from(shape_names()),
    st.integers(1, 50),
    st.lists(st.integers(1, 100_000), max_size=5),
)
def test_what_it_takes_is_enough_and_no_more(device: Device, name: str, devices: int, contexts: list[int]) -> None:
    """On the devices it asks for it fits, and on one less it does not."""
    shape = load_shape(name)
    account = fit(device, shape, Placement(devices), contexts)
    assert account.fits == (devices >= account.devices_needed)
    enough = fit(device, shape, Placement(account.devices_needed), contexts)
    assert enough.fits
    assert enough.devices_needed == account.devices_needed


@given(st.sampled_from(DEVICES), st.sampled_from(shape_names()), st.integers(1, 60), st.integers(1, 50_000))
def test_as_many_sequences_fit_as_it_says(device: Device, name: str, devices: int, tokens: int) -> None:
    """With that many the account is even, with one more it is not."""
    shape, placement = load_shape(name), Placement(devices)
    number = max_sequences(device, shape, placement, tokens)
    each = shape.kv_bytes(tokens)
    free = usable_bytes(device) * devices - shape.weight_bytes("bf16")
    assert number == max(0, int(free // each))
