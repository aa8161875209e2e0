"""One type per kind of identifier, so that mypy tells them apart."""

import secrets
from typing import NewType

RequestId = NewType("RequestId", str)
"""One generation as the engines know it; a client's request with n choices has n of them."""
WorkerId = NewType("WorkerId", str)
"""The configured name of a worker, stable over restarts, such as ``prefill-0``."""
Epoch = NewType("Epoch", str)
"""One incarnation of a worker: a random number in hexadecimal, one more with each change of its role."""
HandoffId = NewType("HandoffId", str)
"""One passing of a token range's KV between two workers: 128 random bits in hexadecimal."""
TenantId = NewType("TenantId", str)
"""The account of an authenticated identity; never taken from what a client writes."""
ModelId = NewType("ModelId", str)
"""The canonical name of a served model, such as ``twinfer.demo-v1:0``."""


def new_epoch() -> Epoch:
    """Draw the epoch of a process that starts now."""
    return Epoch(f"{secrets.randbits(63):016x}")  # half the range is left to be counted up


def next_epoch(epoch: Epoch) -> Epoch:
    """The epoch after a change of role: greater, also as text."""
    return Epoch(f"{int(epoch, 16) + 1:016x}")


def new_handoff_id() -> HandoffId:
    """Draw an identifier that nobody can guess."""
    return HandoffId(secrets.token_hex(16))
