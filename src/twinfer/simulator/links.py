"""How KV gets from worker to worker: every worker has one way out and one way in, which all its transfers share."""

from dataclasses import dataclass

from twinfer.devices.profile import LinkProfile
from twinfer.devices.transfer import bytes_per_second

LINKS = {
    "trn2": "efa-trn2",
    "trn3": "efa-trn3",
    "cs3": "cs3-inlet",
    "h100": "efa-p5",
    "h200": "efa-p5en",
    "b200": "efa-p6-b200",
    "gb200": "infiniband-400",
    "mi300x": "infiniband-400",
    "mi355x": "infiniband-400",
    "this": "this-shm",
}
"""The link of the catalogue that a device has beside it, as clouds and machines sell them."""
OTHERWISE = "ethernet-100g"
DEVICES_SHARING = {
    "efa-p5": 8,
    "efa-p5en": 8,
    "efa-p6-b200": 8,
    "efa-p6-b300": 8,
    "efa-trn2": 16,
    "rdma-4x400-sglang": 8,
    "rdma-8x200-vllm": 8,
}
"""Devices of one machine that share what the catalogue has as one link; of the others each device has its own."""


def link_name(device: str) -> str:
    """The link that a device is taken to have."""
    return LINKS.get(device, OTHERWISE)


@dataclass(slots=True)
class Port:
    """One worker's way out, or in: what is sent first goes first, at the rate of all its devices together.

    Attributes:
        bytes_per_s: what it moves once it flows.
        latency_s: fixed time of one transfer.
        slower: how many times as long bytes take as they should.
        free_at: when all that was given to it is through.
        num_bytes: moved so far.
        busy_s: time it moved them in.
    """

    bytes_per_s: float
    latency_s: float
    slower: float = 1.0
    free_at: float = 0.0
    num_bytes: float = 0.0
    busy_s: float = 0.0

    def take(self, now: float, num_bytes: float) -> float:
        """Bytes come to it; returns when the last one is through."""
        seconds = num_bytes * self.slower / self.bytes_per_s
        self.free_at = max(now, self.free_at) + seconds
        self.num_bytes += num_bytes
        self.busy_s += seconds
        return self.free_at


def port(link: LinkProfile, devices: int, block_bytes: float) -> Port:
    """The way of a worker over so many devices, for blocks of that size."""
    lanes = devices / DEVICES_SHARING.get(link.name, 1)
    return Port(lanes * bytes_per_second(link, block_bytes), link.latency_s.value)


def arrival(way_out: Port, way_in: Port, now: float, num_bytes: float) -> float:
    """When the last byte is there: both ways carry it at the same time, the one with more before it decides."""
    through = max(way_out.take(now, num_bytes), way_in.take(now, num_bytes))
    return through + max(way_out.latency_s, way_in.latency_s)
