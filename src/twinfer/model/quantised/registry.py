"""From ``config.json`` to the scheme of a quantised checkpoint."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from twinfer.model.fields import Fields
from twinfer.model.quantised.awq import read_awq
from twinfer.model.quantised.compressed import read_compressed
from twinfer.model.quantised.fields import choice
from twinfer.model.quantised.fp8 import read_fp8
from twinfer.model.quantised.gptq import read_gptq
from twinfer.model.quantised.scheme import Scheme

READERS: Mapping[str, Callable[[Fields], Scheme]] = MappingProxyType(
    {"awq": read_awq, "compressed-tensors": read_compressed, "fp8": read_fp8, "gptq": read_gptq}
)
"""By ``quant_method``."""


def read_scheme(config: Mapping[str, Any]) -> Scheme | None:
    """How a checkpoint's matrices are stored; ``None`` where they are numbers, or gpt-oss' own MXFP4.

    Raises:
        CheckpointError: a method or parameter is not supported; the message names the field.
    """
    fields = Fields(config, "config.json")
    if fields.get("quantization_config") is None or fields.get("model_type") == "gpt_oss":
        return None
    quantisation = fields.table("quantization_config")
    return READERS[choice(quantisation, "quant_method", tuple(READERS))](quantisation)
