"""How fast KV may come into a worker: as it can, slowed down on purpose, or as fast as a link that is not here."""

from pathlib import Path

from twinfer.core.config import LinkConfig
from twinfer.core.errors import ConfigError
from twinfer.core.layout import KVLayout
from twinfer.devices.catalogue import CATALOGUE, Catalogue, measured_directory
from twinfer.devices.transfer import bytes_per_second
from twinfer.transport.gate import Pace
from twinfer.transport.throttle import Speed, Throttle, unlimited


def link_pace(link: LinkConfig, layout: KVLayout, cache_dir: Path) -> Pace:
    """The pace of what a worker pulls.

    Args:
        link: names the link to emulate, or a rate.
        layout: of the worker's pool; virtual KV takes the time of what it stands for, there as here.
        cache_dir: may hold profiles of this machine.

    Raises:
        ConfigError: no such link, or both at once.
    """
    if link.throttle_mb_per_s and link.emulation.device:
        raise ConfigError("link.throttle_mb_per_s and link.emulation.device slow the same link down: set one of them")
    if link.throttle_mb_per_s:
        return Throttle(Speed(link.throttle_mb_per_s * 1e6))
    return Throttle(emulated_speed(link, layout, cache_dir)) if link.emulation.device else unlimited


def emulated_speed(link: LinkConfig, layout: KVLayout, cache_dir: Path) -> Speed:
    """What the catalogue says of the link that is emulated, for blocks of this layout.

    Raises:
        ConfigError: no such link, or numbers that no link can have.
    """
    wanted = link.emulation
    if wanted.lanes < 1 or not wanted.time_scale > 0:
        raise ConfigError(
            f"link.emulation has lanes = {wanted.lanes} and time_scale = {wanted.time_scale:g}; "
            f"it needs at least one lane and a scale above 0"
        )
    profile = Catalogue((CATALOGUE, measured_directory(cache_dir))).link(wanted.device)
    rate = bytes_per_second(profile, layout.counted_block_bytes, wanted.lanes)
    return Speed(
        rate / wanted.time_scale,
        profile.latency_s.value * wanted.time_scale,
        layout.counted_block_bytes / layout.block_bytes,
    )
