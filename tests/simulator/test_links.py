"""Ways between workers are shared."""

from twinfer.devices.catalogue import Catalogue
from twinfer.simulator.links import Port, arrival, link_name, port


def test_one_alone() -> None:
    """Latency once, and the bytes at the slower rate."""
    assert 0.5 + 10.0 == arrival(Port(100.0, 0.5), Port(50.0, 0.1), 0.0, 500.0)


def test_contention_halves_the_bandwidth() -> None:
    """Two sources into one sink: together they take twice as long as one of them."""
    way_in = Port(100.0, 0.0)
    assert [10.0, 20.0] == [arrival(Port(100.0, 0.0), way_in, 0.0, 1000.0) for _ in range(2)]
    assert (2000.0, 20.0) == (way_in.num_bytes, way_in.busy_s)


def test_a_wide_way_in_is_not_held_up_by_a_narrow_way_out() -> None:
    """Ten sources of a tenth of its rate fill it."""
    way_in = Port(100.0, 0.0)
    assert [100.0] * 10 == [round(arrival(Port(10.0, 0.0), way_in, 0.0, 1000.0), 6) for _ in range(10)]


def test_what_devices_have() -> None:
    """Trainium3 has EFA of its own, and eight H100 share that of their machine."""
    catalogue = Catalogue()
    assert ("efa-trn3", "cs3-inlet", "this-shm", "ethernet-100g") == tuple(
        map(link_name, ("trn3", "cs3", "this", "graviton4"))
    )
    one, eight = (port(catalogue.link("efa-p5"), devices, 2**20) for devices in (1, 8))
    assert 8 * one.bytes_per_s == eight.bytes_per_s
