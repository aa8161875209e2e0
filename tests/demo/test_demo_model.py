"""The model in `src/twinfer/demo` is small, complete, loads anywhere and does what its card says."""

from __future__ import annotations

import json
import math
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

FOLDER = Path(__file__).parents[2] / "src" / "twinfer" / "demo"
MAX_BYTES = 12_000_000
# Held-out files that hardly differ between Python versions, and the room for what does differ.
STABLE_FILES = ("colorsys.py", "xml/sax/__init__.py")
BITS_SLACK = 1.10


def read_json(name: str) -> dict[str, Any]:
    """A JSON file of the model folder."""
    value: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return value


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The tokenizer as the `tokenizers` package reads it."""
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, dict[str, Any]]:
    """The model as `transformers` reads it, and what it says about the loading."""
    transformers = pytest.importorskip("transformers")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        FOLDER, local_files_only=True, output_loading_info=True, dtype="float32"
    )
    return model.eval(), info


def render(messages: list[dict[str, Any]]) -> str:
    """Render the chat template as `transformers` does."""
    config = read_json("tokenizer_config.json")
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(config["chat_template"])
    return template.render(messages=messages, bos_token=config["bos_token"], add_generation_prompt=True)


def test_folder_is_small() -> None:
    """The whole folder stays below 12 MB."""
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) <= MAX_BYTES


def test_card_states_the_measured_figures() -> None:
    """The card's figures are those that the tools wrote, and they pass the bar."""
    card = (FOLDER / "README.md").read_text()
    training, evaluation = read_json("training.json"), read_json("evaluation.json")
    assert evaluation["functions"] == 100
    assert evaluation["parsed"] >= 50
    for figure in (
        f"{training['steps']:,}",
        f"{training['tokens']:,}",
        f"{evaluation['parameters']:,}",
        f"{evaluation['held_out_bytes']:,}",
        f"{evaluation['bits_per_byte']:.3f}",
        f"{evaluation['parsed']} of {evaluation['functions']}",
        f"{evaluation['first_half_parsed']} of {evaluation['functions']}",
    ):
        assert figure in card


def test_special_tokens(tokenizer: Tokenizer) -> None:
    """The ids in the configuration are those of the tokenizer, and encoding adds none of them."""
    config = read_json("config.json")
    for name, token in (("bos", "<|bos|>"), ("eos", "<|eos|>"), ("pad", "<|pad|>")):
        assert tokenizer.token_to_id(token) == config[f"{name}_token_id"]
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    assert tokenizer.encode("").ids == []


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_tokenizer_returns_any_text(tokenizer: Tokenizer, text: str) -> None:
    """Decoding the encoding gives the text back, whatever it is."""
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("width", range(2, 32))
def test_indentation_is_one_token(tokenizer: Tokenizer, width: int) -> None:
    """A newline and the indentation after it are one token each."""
    assert tokenizer.encode("x\n" + " " * width + "return").tokens[1:] == ["Ċ", "Ġ" * width, "return"]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "<|bos|>"),
        ([{"role": "user", "content": "def f():\n    "}], "<|bos|>def f():\n    "),
        (
            [
                {"role": "system", "content": "# a\n"},
                {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": " = 1\n"}]},
                {"role": "assistant", "content": None},
                {"role": "assistant", "content": "y = {{ 2 }}\n"},
            ],
            "<|bos|># a\nx = 1\ny = {{ 2 }}\n",
        ),
    ],
)
def test_chat_template_is_the_text_itself(messages: list[dict[str, Any]], expected: str) -> None:
    """The template puts the contents after the start token, with nothing between or after them."""
    assert render(messages) == expected


@pytest.mark.torch
def test_loads_in_transformers(loaded: tuple[Any, dict[str, Any]]) -> None:
    """No weight is missing or left over, and greedy decoding goes on with a function."""
    transformers = pytest.importorskip("transformers")
    model, info = loaded
    assert {key: list(value) for key, value in info.items() if value} == {}
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    prompt = "def add(a, b):\n    "
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    out = model.generate(**encoded, do_sample=False, max_new_tokens=16)
    text = tokenizer.decode(out[0])
    assert text.startswith("<|bos|>" + prompt)
    assert len(text) > len("<|bos|>" + prompt)


@pytest.mark.torch
@pytest.mark.parametrize("name", STABLE_FILES)
def test_held_out_bits_per_byte(name: str, loaded: tuple[Any, dict[str, Any]], tokenizer: Tokenizer) -> None:
    """The bits per byte of an unseen file, measured without the training code, agree with the card."""
    torch = pytest.importorskip("torch")
    path = Path(sysconfig.get_path("stdlib")) / name
    if not path.exists():
        pytest.skip(f"this Python has no {name}")
    text = path.read_text(encoding="utf-8")
    ids = torch.tensor([[0, *tokenizer.encode(text).ids, 1]])
    assert ids.shape[1] <= 2048
    with torch.no_grad():
        logits = loaded[0](ids).logits[0, :-1]
    nats = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
    bits = nats / math.log(2) / len(text.encode())
    assert bits <= read_json("evaluation.json")["bits_per_byte_of"][name] * BITS_SLACK
