"""Twinfer's and safetensors' names of element types, in torch."""

from collections.abc import Mapping
from types import MappingProxyType

import torch

from twinfer.core.layout import KVDtype
from twinfer.model.spec import Precision

TORCH: Mapping[KVDtype | Precision, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.uint8}
)
"""Of a KV pool in fp8, the bytes: its elements and scales lie in one tensor."""
STORED: Mapping[Precision, str] = MappingProxyType({"fp32": "F32", "bf16": "BF16", "fp16": "F16"})
TORCH_STORED: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "F32": torch.float32,
        "BF16": torch.bfloat16,
        "F16": torch.float16,
        "U8": torch.uint8,
        "F8_E4M3": torch.float8_e4m3fn,
        "I8": torch.int8,
        "I32": torch.int32,
        "I64": torch.int64,
    }
)
