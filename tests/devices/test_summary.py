"""One line each: machines of many devices are summed up, and no line is better than its worst number."""

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.summary import device_summaries, link_summaries
from twinfer.devices.value import Quality

CATALOGUE = Catalogue()
DEVICES = {one.name: one for one in device_summaries(CATALOGUE)}
LINKS = {one.name: one for one in link_summaries(CATALOGUE)}


def test_every_entry_is_in_one_of_them() -> None:
    """Devices and links, nothing twice."""
    assert [entry.name for entry in CATALOGUE.entries] == sorted([*DEVICES, *LINKS])


def test_an_ultraserver_is_its_chips() -> None:
    """144 times the figures of one, and as doubtful."""
    chip, server = DEVICES["trn3"], DEVICES["trn3-ultraserver-gen2"]
    assert (144, 144 * chip.bf16_flops, 144 * chip.memory_bytes) == (
        server.devices,
        server.bf16_flops,
        server.memory_bytes,
    )
    assert chip.worst == server.worst == Quality.ESTIMATE


def test_what_is_not_known_is_not_filled_in() -> None:
    """A price that nobody publishes is none."""
    assert (None, 41.96) == (DEVICES["trn3"].price_per_hour, DEVICES["cs3"].price_per_hour)


def test_links_reach_less_than_their_line() -> None:
    """With large blocks, one way."""
    assert [] == [link.name for link in LINKS.values() if link.reached_bytes_per_s > link.line_bytes_per_s]
    assert 127.5e9 == LINKS["cs3-inlet"].reached_bytes_per_s
