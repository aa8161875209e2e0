import subprocess
import sys
from itertools import pairwise
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


def test_longrope_goes_by_the_context(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Contexts on the two sides of the original one make different KV; those on one side the same."""
    divisors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    changes = {"original_max_position_embeddings": 64, "rope_scaling": {"type": "longrope", **divisors}}
    source = str(tiny("tiny-phi3", **changes))
    found = [describe(source, cache_dir, max_context_tokens=context).fingerprint for context in (32, 64, 65, 512)]
    assert [True, False, True] == [one == other for one, other in pairwise(found)]


def test_every_rope_is_in_the_fingerprint(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """That of layers with a window too."""
    expected = "rotate halves, theta 1e+06, linear by 4; rotate halves, theta 10000"
    assert expected == describe(str(tiny("tiny-gemma3")), cache_dir).fingerprint.rope


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
