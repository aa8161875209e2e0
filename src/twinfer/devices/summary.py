"""One line for each entry of the catalogue, machines of many devices summed up."""

from dataclasses import dataclass

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.profile import Entry, GroupProfile, LinkProfile, PipelineProfile, RooflineProfile, worst_quality
from twinfer.devices.transfer import bytes_per_second
from twinfer.devices.value import Quality, Value, worst

CLASSES: dict[type, str] = {
    RooflineProfile: "roofline",
    PipelineProfile: "pipeline_sram",
    GroupProfile: "group",
    LinkProfile: "link",
}


@dataclass(frozen=True, slots=True)
class DeviceSummary:
    """What a device is in one line; of many together, their sum.

    Attributes:
        kind: its class, as files name it.
        price_per_hour: in US dollars; ``None`` where none is known.
        worst: the quality that casts most doubt on its numbers.
    """

    name: str
    title: str
    kind: str
    devices: int
    memory_bytes: float
    memory_bytes_per_s: float
    bf16_flops: float
    price_per_hour: float | None
    worst: Quality


@dataclass(frozen=True, slots=True)
class LinkSummary:
    """What a link is in one line; ``reached_bytes_per_s`` is with large blocks."""

    name: str
    title: str
    line_bytes_per_s: float
    reached_bytes_per_s: float
    latency_s: float
    worst: Quality


def device_summaries(catalogue: Catalogue) -> tuple[DeviceSummary, ...]:
    """All devices, by name."""
    return tuple(_device(catalogue, entry) for entry in catalogue.entries if not isinstance(entry, LinkProfile))


def link_summaries(catalogue: Catalogue) -> tuple[LinkSummary, ...]:
    """All links, by name."""
    return tuple(_link(entry) for entry in catalogue.entries if isinstance(entry, LinkProfile))


def _device(catalogue: Catalogue, entry: RooflineProfile | PipelineProfile | GroupProfile) -> DeviceSummary:
    profile, number = catalogue.device(entry.name)
    price: Value | None = entry.price_per_hour
    return DeviceSummary(
        name=entry.name,
        title=entry.title,
        kind=CLASSES[type(entry)],
        devices=number,
        memory_bytes=number * profile.memory_bytes.value,
        memory_bytes_per_s=number * profile.memory_bytes_per_s.value,
        bf16_flops=number * profile.bf16_flops.value,
        price_per_hour=None if price is None else price.value,
        worst=worst([worst_quality(entry), worst_quality(profile)]),
    )


def _link(link: LinkProfile) -> LinkSummary:
    return LinkSummary(
        link.name,
        link.title,
        link.line_bytes_per_s.value,
        bytes_per_second(link, link.efficiency[-1].at),
        link.latency_s.value,
        worst_quality(link),
    )


def class_of(entry: Entry) -> str:
    """How files name an entry's class."""
    return CLASSES[type(entry)]
