"""Which endpoint is pulled from, as data in, choice out."""

import pytest

from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import TransportError
from twinfer.transport.choose import Choice, choose_endpoint
from twinfer.transport.host import host_id

SHM = Endpoint("shm", "@twinfer-kv-1", "here")
TCP = Endpoint("tcp", "127.0.0.1:4000", "here")
FAR_SHM = Endpoint("shm", "@twinfer-kv-2", "there")
FAR_TCP = Endpoint("tcp", "10.0.0.2:4000", "there")


@pytest.mark.parametrize(
    ("endpoints", "wanted", "supported", "expected"),
    [
        ((TCP, SHM), "auto", ("shm", "tcp"), Choice(SHM, "shm because both workers are on one host")),
        ((FAR_TCP, FAR_SHM), "auto", ("shm", "tcp"), Choice(FAR_TCP, "tcp because the workers are on different hosts")),
        ((TCP, SHM), "auto", ("tcp",), Choice(TCP, "tcp because this worker or its peer has no shm")),
        ((TCP,), "auto", ("shm", "tcp"), Choice(TCP, "tcp because this worker or its peer has no shm")),
        ((TCP, SHM), "tcp", ("shm", "tcp"), Choice(TCP, "tcp is what the configuration asks for")),
        ((TCP, SHM), "shm", ("shm", "tcp"), Choice(SHM, "shm is what the configuration asks for")),
    ],
)
def test_choices(endpoints: tuple[Endpoint, ...], wanted: str, supported: tuple[str, ...], expected: Choice):
    """Shared memory where both are on one host and have it, else TCP; what is wanted wins."""
    assert expected == choose_endpoint(endpoints, "here", wanted, supported)


@pytest.mark.parametrize(
    ("endpoints", "wanted", "supported", "message"),
    [
        ((), "auto", ("shm", "tcp"), "the source offers nothing"),
        ((FAR_SHM,), "auto", ("shm", "tcp"), "offers shm elsewhere, this worker has shm, tcp"),
        ((FAR_SHM, FAR_TCP), "shm", ("shm", "tcp"), "offers shm elsewhere, tcp elsewhere"),
        ((TCP,), "nixl", ("shm", "tcp"), "set link.transport to one that both have"),
        ((SHM,), "auto", ("tcp",), "offers shm on this host, this worker has tcp"),
    ],
)
def test_no_choice(endpoints: tuple[Endpoint, ...], wanted: str, supported: tuple[str, ...], message: str):
    """The error says what was offered, what is here, and what to do."""
    with pytest.raises(TransportError, match=message):
        choose_endpoint(endpoints, "here", wanted, supported)


def test_a_host_knows_itself():
    """The id is the same each time, and not empty."""
    assert host_id() == host_id() != ""
