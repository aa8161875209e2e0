"""What a pool of the configuration is made of: step times, KV and its bytes, a link, a price, and their doubts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from twinfer.core.capabilities import Capabilities
from twinfer.core.config import LinkEmulationConfig, ModelConfig, PoolConfig
from twinfer.core.cost import LinkCost, StepCost
from twinfer.devices.catalogue import CATALOGUE, Catalogue, measured_directory
from twinfer.devices.profile import Entry, LinkProfile, worst_quality
from twinfer.devices.transfer import bytes_per_second, wire_bytes
from twinfer.devices.value import Quality, Value, worst
from twinfer.engine.assemble import emulated_capabilities
from twinfer.engine.step_fit import StepFit
from twinfer.engine.step_seed import seed_cost
from twinfer.engine.step_times import DeviceTimes, FixedTimes, StepTimes, device_times, virtual_layout
from twinfer.simulator.links import Port, link_name, port
from twinfer.simulator.native_pool import as_emulated

NO_DEVICE_LINK = "tcp"
NO_EMULATED_LINK = LinkEmulationConfig()


@dataclass(frozen=True, slots=True)
class Hardware:
    """One worker of a pool.

    Attributes:
        pool: as it is configured.
        title: in words.
        times: of its steps.
        capabilities: what it offers, its number of KV blocks among it.
        link: to the other workers.
        price_per_hour: in US dollars, of all its devices; ``None`` where none is known.
        power_w: of all its devices; ``None`` where it is not known.
        quality: of the worst number in it.
        emulated: how the configuration stretches ``link`` and how many lanes it has, where it names that link.
        seed: what a worker believes of its steps before the first one; ``None`` where nothing is known.
    """

    pool: PoolConfig
    title: str
    times: StepTimes
    capabilities: Capabilities
    link: LinkProfile
    price_per_hour: float | None
    power_w: float | None
    quality: Quality
    emulated: LinkEmulationConfig = NO_EMULATED_LINK
    seed: StepCost | None = None
    _bytes: dict[int, float] = field(default_factory=dict)

    @property
    def block_bytes(self) -> float:
        """KV of one block at the beginning of a context, where no window is full."""
        return self.kv_bytes(0, self.capabilities.layout.block_tokens)

    def kv_bytes(self, start: int, end: int) -> float:
        """KV of the positions ``[start, end)`` of a context, as it travels."""
        return self._until(end) - self._until(start)

    def fit(self) -> StepFit | None:
        """What learns the costs of a worker's steps."""
        return None if self.seed is None else StepFit(self.pool.max_step_tokens, self.seed)

    def link_cost(self) -> LinkCost:
        """What a transfer to a worker costs with nothing else on its way, as the catalogue has it."""
        way = self.port()
        return LinkCost(way.latency_s, 1.0 / way.bytes_per_s)

    def port(self) -> Port:
        """A worker's way out or in."""
        times, wanted = self.times, self.emulated
        if wanted.device:
            rate = bytes_per_second(self.link, self.block_bytes, wanted.lanes) / wanted.time_scale
            return Port(rate, self.link.latency_s.value * wanted.time_scale)
        devices = times.placement.devices if isinstance(times, DeviceTimes) else 1
        return port(self.link, devices, self.block_bytes / devices)

    def _until(self, tokens: int) -> float:
        times, found = self.times, self._bytes.get(tokens)
        if found is None:
            if isinstance(times, DeviceTimes):
                placement = times.placement
                found = wire_bytes(times.shape, tokens, placement.tensor_parallel, placement.kv_element_bytes)
            else:
                found = float(tokens * self.capabilities.layout.token_bytes)
            self._bytes[tokens] = found
        return found


def hardware(
    model: ModelConfig,
    pool: PoolConfig,
    cache_dir: Path,
    links: Mapping[str, str],
    emulated: LinkEmulationConfig = NO_EMULATED_LINK,
) -> Hardware:
    """What the pool's workers are.

    Args:
        model: that they serve.
        pool: theirs; a native one takes the times of a device that was measured.
        cache_dir: may hold profiles of this machine.
        links: names of links by pool, where neither the configuration's nor the device's own.
        emulated: the link that the configuration has emulated.

    Raises:
        ConfigError: no such device, shape or link; this machine was not measured; or the model does not fit.
    """
    catalogue = Catalogue((CATALOGUE, measured_directory(cache_dir)))
    played = as_emulated(model, pool, catalogue) if pool.engine == "native" else pool
    emulation = played.emulation
    named = links.get(pool.name, "")
    emulated = NO_EMULATED_LINK if named else emulated
    named = named or emulated.device
    if not emulation.device:
        fixed = FixedTimes(emulation.prefill_tokens_per_s, emulation.decode_step_ms / 1e3)
        link = catalogue.link(named or NO_DEVICE_LINK)
        capabilities = emulated_capabilities(model, played)
        return Hardware(pool, "fixed times", fixed, capabilities, link, None, None, worst_quality(link), emulated)
    times = device_times(emulation, cache_dir)
    entry, devices = catalogue.entry(emulation.device), times.placement.devices
    link = catalogue.link(named or link_name(times.profile.name))
    capabilities = emulated_capabilities(model, played, times.kv_tokens(emulation.max_context_tokens))
    counted = virtual_layout(played).virtual_token_bytes
    layout = msgspec.structs.replace(capabilities.layout, virtual_token_bytes=counted)
    capabilities = msgspec.structs.replace(capabilities, layout=layout)
    together = catalogue.device(emulation.device)[1]
    return Hardware(
        pool,
        str(times),
        times,
        capabilities,
        link,
        _of_all(entry, times.profile, "price_per_hour", together, devices),
        _of_all(entry, times.profile, "power_w", together, devices),
        worst([worst_quality(entry), worst_quality(times.profile), worst_quality(link)]),
        emulated,
        seed_cost(times, pool.max_step_tokens),
    )


def _of_all(entry: Entry, member: Entry, name: str, together: int, devices: int) -> float | None:
    """A number of the machine, or else of one device, for as many devices as are taken."""
    for one, size in ((entry, together), (member, 1)):
        found = getattr(one, name, None)
        if isinstance(found, Value):
            return found.value * devices / size
    return None
