"""Whether a model and its KV fit, and if not, by how much and on how many devices they would."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from twinfer.devices.placement import Placement
from twinfer.devices.profile import Device, RooflineProfile
from twinfer.devices.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Fit:
    """An account of memory over all devices of a placement.

    Attributes:
        weight_bytes: of one replica.
        kv_bytes: of all contexts, repeated heads counted as often as they are held.
        room_bytes: what the devices have for both.
        devices: how many there are.
        devices_needed: the fewest that would do, with the same degree of tensor parallelism.
    """

    what: str
    where: str
    weight_bytes: float
    kv_bytes: float
    room_bytes: float
    devices: int
    devices_needed: int

    @property
    def missing_bytes(self) -> float:
        """How much too much there is; 0 where it fits."""
        return max(0.0, self.weight_bytes + self.kv_bytes - self.room_bytes)

    @property
    def fits(self) -> bool:
        """Whether there is room for everything."""
        return not self.missing_bytes

    def __str__(self) -> str:
        kv = f" and {_gb(self.kv_bytes)} of KV" if self.kv_bytes else ""
        parts, place = f"{_gb(self.weight_bytes)} of weights{kv}", f"{self.devices} x {self.where}"
        if self.fits:
            return f"{self.what} fits on {place}: {parts} in {_gb(self.room_bytes)}"
        return (
            f"{self.what} does not fit on {place}: {parts} are {_gb(self.missing_bytes)} more than the "
            f"{_gb(self.room_bytes)} there; it would on {self.devices_needed}"
        )


def fit(profile: Device, shape: ModelShape, placement: Placement, contexts: Sequence[int] = ()) -> Fit:
    """The account of a model with contexts of these lengths, in tokens, held at a time."""
    weights = float(shape.weight_bytes(placement.precision))
    kv = sum(shape.kv_bytes(tokens, placement.kv_element_bytes) for tokens in contexts)
    kv *= shape.kv_copies(placement.tensor_parallel)
    room = usable_bytes(profile)
    groups = math.ceil((weights + kv) / (room * placement.tensor_parallel))
    return Fit(
        what=shape.name,
        where=profile.name,
        weight_bytes=weights,
        kv_bytes=kv,
        room_bytes=room * placement.devices,
        devices=placement.devices,
        devices_needed=groups * placement.tensor_parallel,
    )


def max_sequences(profile: Device, shape: ModelShape, placement: Placement, context_tokens: int) -> int:
    """How many contexts of that length fit beside the weights."""
    account = fit(profile, shape, placement)
    each = shape.kv_bytes(context_tokens, placement.kv_element_bytes) * shape.kv_copies(placement.tensor_parallel)
    return max(0, math.floor((account.room_bytes - account.weight_bytes) / each))


def usable_bytes(profile: Device) -> float:
    """Memory of one device that weights and KV can have."""
    if isinstance(profile, RooflineProfile):
        return profile.memory_bytes.value - profile.reserved_bytes.value
    return profile.memory_bytes.value * (1 - profile.reserved_share.value)


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.3g} GB" if num_bytes < 1e12 else f"{num_bytes / 1e12:.3g} TB"
