"""How long bytes take over a link: ``latency + bytes / (lanes * efficiency(block) * line)``."""

from twinfer.devices.profile import LinkProfile
from twinfer.devices.shape import ModelShape
from twinfer.devices.value import on_curve

LARGE_BLOCK_BYTES = 2**20


def bytes_per_second(link: LinkProfile, block_bytes: float = LARGE_BLOCK_BYTES, lanes: int = 1) -> float:
    """What a link moves once it flows, in blocks of that size."""
    return lanes * link.line_bytes_per_s.value * on_curve(link.efficiency, block_bytes)


def transfer_seconds(
    link: LinkProfile, num_bytes: float, block_bytes: float = LARGE_BLOCK_BYTES, lanes: int = 1
) -> float:
    """Seconds until the last byte is there, with nothing else on the link.

    Args:
        link: the one to cross; of two in a row the slower one.
        num_bytes: to be moved; nothing takes no time.
        block_bytes: size of one contiguous piece.
        lanes: links side by side over which the bytes are dealt out evenly, such as the inlets of several wafers.
    """
    return link.latency_s.value + num_bytes / bytes_per_second(link, block_bytes, lanes) if num_bytes else 0.0


def wire_bytes(shape: ModelShape, tokens: int, tensor_parallel: int = 1, element_bytes: float = 2.0) -> float:
    """KV that engines move for a context: heads that are repeated over devices travel once per copy.

    Mooncake measures 12.62 GB for Qwen3-235B at 32k over 8 devices, twice its KV: 4 heads on 8 ranks.
    """
    return shape.kv_bytes(tokens, element_bytes) * shape.kv_copies(tensor_parallel)
