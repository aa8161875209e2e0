"""How fast torch multiplies matrices in BF16 on this machine's processor."""

import torch

from twinfer.core.clock import Clock

REPEATS = 7


def bf16_matmul_rates(clock: Clock, size: int = 2048) -> list[float]:
    """Operations per second of a product of two square matrices; the first, which warms up, is not counted."""
    left, right = (torch.ones(size, size, dtype=torch.bfloat16) for _ in range(2))
    rates = []
    for _ in range(REPEATS + 1):
        started = clock.now()
        torch.mm(left, right)
        rates.append(2 * size**3 / max(clock.now() - started, 1e-9))
    return rates[1:]


def use_threads(number: int) -> None:
    """Compute with so many threads from now on."""
    torch.set_num_threads(number)
