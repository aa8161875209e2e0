"""A deployment without a model whose every token is known beforehand, and follows from the KV bytes really present."""

from tests.fakes import expected_output
from twinfer.core.config import EmulationConfig
from twinfer.gateway.models import ServedModel
from twinfer.gateway.text.conversation import Conversation, say

EMULATED_ID = "twinfer.emulated-v1:0"
EMULATED = f"""
[[model]]
id = "{EMULATED_ID}"

[[pool]]
name = "prefill"
role = "prefill"
engine = "emulated"
kv_mib = 8
max_step_tokens = 128

[[pool]]
name = "decode"
role = "decode"
engine = "emulated"
kv_mib = 8
"""
"""Starts in a moment, answers at once, and takes 256 bytes of KV per token: 32,768 tokens fit a pool."""


def expected_tokens(model: ServedModel, text: str, num_tokens: int, num_layers: int = 2, seed: int = 0) -> list[bytes]:
    """The bytes of the tokens with which an emulated deployment must answer, as everybody's tenant.

    Args:
        model: whose tokenizer and template the deployment uses.
    """
    prompt = model.prompt(Conversation((say("user", text),)))
    emulation = EmulationConfig(num_layers=num_layers, vocab_size=model.vocab_size, seed=seed)
    return [model.tokenizer.token_bytes(token) for token in expected_output(prompt, num_tokens, emulation, "default")]
