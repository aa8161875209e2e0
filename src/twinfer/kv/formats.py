"""The element types of a KV pool to and from float32, with numpy, which has neither bfloat16 nor fp8.

bf16 is handled as the upper half of a float32. fp8 is e4m3 with a scale per row, as ``core.layout`` defines it.
Rounding is to the nearest, ties to even, once.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twinfer.core.layout import KVDtype

Float32s: TypeAlias = NDArray[np.float32]
Stored: TypeAlias = NDArray[Any]
Scales: TypeAlias = NDArray[np.uint8]

STORAGE: dict[KVDtype, np.dtype[np.generic]] = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
    "fp8": np.dtype(np.uint8),
}

_EXPONENT_OF_448 = 8
_ABOVE_448 = np.uint32(0x1FFFFF)
"""Added to the bits of a float32, carries into its exponent exactly when its mantissa is above that of 448."""
_E4M3_EXPONENT_SHIFT = np.uint32((127 - 7) << 3)
_E4M3_MIN_NORMAL = np.uint32((127 - 6) << 23)
_SUBNORMAL_MAGIC = np.float32(2.0**14)
"""Adding it to a magnitude below ``2 ** -6`` leaves that in units of ``2 ** -9``, rounded, in the last bits."""


def encode(values: Float32s, dtype: KVDtype) -> tuple[Stored, Scales | None]:
    """Float32 values ``[..., head_dim]`` as they are stored, and for fp8 their scales ``[...]``.

    What is too large for fp16 becomes infinite; a row that is not finite stays so in every type.
    """
    if dtype == "fp8":
        return _encode_fp8(values)
    if dtype == "bf16":
        return _encode_bf16(values), None
    with np.errstate(over="ignore"):
        return values.astype(STORAGE[dtype], copy=False), None


def decode(stored: Stored, scales: Scales | None, dtype: KVDtype) -> Float32s:
    """What :func:`encode` gave, back as float32; exact."""
    if dtype == "fp8":
        assert scales is not None
        with np.errstate(invalid="ignore"):  # zero times the scale of a row that is not finite
            values: Float32s = np.take(_E4M3, stored, mode="clip") * _powers(scales)[..., None]
        return values
    if dtype == "bf16":
        bits = stored.astype(np.uint32)
        bits <<= np.uint32(16)
        return bits.view(np.float32)
    return stored.astype(np.float32, copy=False)


def _encode_bf16(values: Float32s) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)  # whether the kept part is odd
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    stored = rounded.astype(np.uint16)
    broken = np.isnan(values)
    if broken.any():
        stored[broken] = 0x7FC0
    return stored


def _encode_fp8(values: Float32s) -> tuple[Stored, Scales]:
    largest = np.abs(values).max(axis=-1)
    raised = (largest.view(np.uint32) + _ABOVE_448) >> np.uint32(23)
    scales = np.maximum(raised.astype(np.int32) - _EXPONENT_OF_448, 1).astype(np.uint8)
    scales[~np.isfinite(largest)] = 255
    inverse = _powers(np.maximum(254 - scales.astype(np.int32), 0))
    with np.errstate(invalid="ignore"):
        return _encode_e4m3(values * inverse[..., None]), scales


def _encode_e4m3(values: Float32s) -> NDArray[np.uint8]:
    """Magnitudes up to 448. The array is used up."""
    magnitudes = values.view(np.uint32)
    signs = (magnitudes >> np.uint32(24)).astype(np.uint8) & np.uint8(0x80)
    magnitudes &= np.uint32(0x7FFFFFFF)
    small = magnitudes < _E4M3_MIN_NORMAL
    normal = magnitudes >> np.uint32(20)
    normal &= np.uint32(1)  # whether the kept part is odd
    normal += np.uint32(0x7FFFF)
    normal += magnitudes
    normal >>= np.uint32(20)
    normal -= _E4M3_EXPONENT_SHIFT
    values += _SUBNORMAL_MAGIC
    magnitudes -= _SUBNORMAL_MAGIC.view(np.uint32)
    return np.where(small, magnitudes, normal).astype(np.uint8) | signs


def _powers(exponents: NDArray[np.integer]) -> Float32s:
    """The float32 with this exponent field and no mantissa: 0 for 0, else ``2 ** (exponent - 127)``."""
    powers: Float32s = (exponents.astype(np.uint32) << np.uint32(23)).view(np.float32)
    return powers


def _e4m3_values() -> Float32s:
    codes = np.arange(256)
    exponents, mantissas = (codes >> 3) & 15, codes & 7
    magnitudes = np.where(exponents > 0, np.ldexp(8.0 + mantissas, exponents - 10), np.ldexp(1.0 * mantissas, -9))
    magnitudes[(codes & 127) == 127] = np.nan
    values: Float32s = np.where(codes < 128, magnitudes, -magnitudes).astype(np.float32)
    return values


_E4M3: Float32s = _e4m3_values()
