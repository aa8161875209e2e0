"""Addresses: their parts, and which of them stay on this machine."""

import pytest

from twinfer.core.address import HostPort, check_address, host_port, reachable, stays_here
from twinfer.core.errors import ConfigError


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:7001", HostPort("127.0.0.1", 7001)),
        ("[::1]:0", HostPort("::1", 0)),
        ("::1:80", HostPort("::1", 80)),
        ("decode.example.net:65535", HostPort("decode.example.net", 65535)),
    ],
)
def test_parts(address: str, expected: HostPort):
    """Host and port, IPv6 with or without brackets; written out again with them."""
    assert expected == host_port(address)
    assert expected == host_port(str(expected))


@pytest.mark.parametrize("address", ["", "host", ":7001", "host:", "host:http", "host:65536", "host:-1"])
def test_no_address(address: str):
    """The message says how one is written."""
    with pytest.raises(ConfigError, match="write host:port or unix:/path"):
        check_address(address, encrypted=True)


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("unix:/run/x.sock", True),
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.5:1", False),
        ("localhost.example.net:1", False),
    ],
)
def test_what_leaves_the_machine_must_be_encrypted(address: str, here: bool):
    """Loopback and socket files stay here; everything else needs certificates, and it is said how to make them."""
    assert here == stays_here(address)
    check_address(address, encrypted=True)
    if here:
        check_address(address, encrypted=False)
    else:
        with pytest.raises(ConfigError, match="twinfer certs"):
            check_address(address, encrypted=False)


@pytest.mark.parametrize(
    ("listen", "advertise", "expected"),
    [
        ("10.0.0.5:7001", "", "10.0.0.5:7001"),
        ("0.0.0.0:7001", "10.0.0.5", "10.0.0.5:7001"),
        ("10.0.0.5:7001", "decode.example.net", "decode.example.net:7001"),
        ("[::]:7001", "fd00::5", "[fd00::5]:7001"),
        ("unix:/run/x.sock", "10.0.0.5", "unix:/run/x.sock"),
    ],
)
def test_what_others_are_told_to_call(listen: str, advertise: str, expected: str):
    """What is advertised wins over what is listened on."""
    assert expected == reachable(listen, advertise)


@pytest.mark.parametrize(("listen", "advertise"), [("0.0.0.0:1", ""), ("[::]:1", ""), ("10.0.0.5:1", "0.0.0.0")])
def test_nobody_can_call_all_addresses(listen: str, advertise: str):
    """A wildcard is announced to nobody."""
    with pytest.raises(ConfigError, match="--advertise"):
        reachable(listen, advertise)
