import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TinyCheckpoints
from twinfer.core.errors import ConfigError
from twinfer.core.layout import KVLayout
from twinfer.model.served import describe

pytestmark = pytest.mark.torch


def test_describe(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """All that capabilities need is known before weights are loaded."""
    model = describe(str(tiny("tiny-qwen3")), cache_dir)
    assert (model.provenance, model.max_context_tokens, model.spec.vocab_size) == ("fp32/fp32", 512, 4096)
    assert KVLayout(3, 2, 32, 16, "fp32") == model.layout(16)


def test_describe_as_asked(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """The KV follows the weights unless it is asked for; the fingerprint follows neither."""
    source = str(tiny("tiny-llama"))
    plain, half = describe(source, cache_dir), describe(source, cache_dir, weights="bf16")
    mixed = describe(source, cache_dir, weights="bf16", kv_dtype="fp32", max_context_tokens=100)
    assert (half.provenance, mixed.provenance, mixed.max_context_tokens) == ("bf16/bf16", "bf16/fp32", 100)
    assert {plain.fingerprint} == {plain.fingerprint, half.fingerprint, mixed.fingerprint}
    assert mixed.layout(4).dtype == "fp32"
    quantised = describe(source, cache_dir, kv_dtype="fp8")
    assert (quantised.provenance, quantised.layout(4).dtype) == ("fp32/fp8", "fp8")
    packed = describe(str(tiny("tiny-llama")), cache_dir, weights="int8")
    assert (packed.provenance, packed.layout(4).dtype) == ("int8/bf16", "bf16")


def test_refused(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """What cannot be served is refused with the option's name."""
    source = str(tiny("tiny-llama"))
    with pytest.raises(ConfigError, match="max_context_tokens 513 is more than the 512 of the model"):
        describe(source, cache_dir, max_context_tokens=513)


def test_no_torch(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Describing a model imports no torch."""
    program = (
        "import sys; from pathlib import Path; from twinfer.model.served import describe; "
        f"describe({str(tiny('tiny-llama'))!r}, Path({str(cache_dir)!r})); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
