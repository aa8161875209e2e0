"""Which endpoint is pulled from, as data in, choice out."""

import pytest

from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import TransportError
from twinfer.transport.choose import Choice, rank_endpoints
from twinfer.transport.host import host_id

SHM = Endpoint("shm", "@twinfer-kv-1", "here")
TCP = Endpoint("tcp", "127.0.0.1:4000", "here")
TLS = Endpoint("tcp+tls", "10.0.0.1:4000", "here")
FAR_SHM = Endpoint("shm", "@twinfer-kv-2", "there")
FAR_TCP = Endpoint("tcp", "10.0.0.2:4000", "there")
FAR_TLS = Endpoint("tcp+tls", "10.0.0.2:4000", "there")
NIXL = Endpoint("nixl", "127.0.0.1:4001#secret", "here")
FAR_NIXL = Endpoint("nixl", "10.0.0.2:4001#secret", "there")

ONE_HOST = "because both workers are on one host"
NOTHING_FASTER = "because this worker or its peer has nothing faster"
OTHER_HOST = "because the workers are on different hosts"
RDMA = "because both workers have RDMA"
ASKED = "is what the configuration asks for"


@pytest.mark.parametrize(
    ("endpoints", "wanted", "supported", "expected"),
    [
        ((TCP, SHM), "auto", ("shm", "tcp"), (Choice(SHM, ONE_HOST), Choice(TCP, NOTHING_FASTER))),
        ((TLS, SHM), "auto", ("shm", "tcp+tls"), (Choice(SHM, ONE_HOST), Choice(TLS, NOTHING_FASTER))),
        ((FAR_TCP, FAR_SHM), "auto", ("shm", "tcp"), (Choice(FAR_TCP, OTHER_HOST),)),
        ((FAR_SHM, FAR_TLS), "auto", ("shm", "tcp+tls"), (Choice(FAR_TLS, OTHER_HOST),)),
        ((TCP, SHM), "auto", ("tcp",), (Choice(TCP, NOTHING_FASTER),)),
        ((TCP,), "auto", ("shm", "tcp"), (Choice(TCP, NOTHING_FASTER),)),
        ((FAR_TCP, FAR_NIXL), "auto", ("tcp", "nixl"), (Choice(FAR_NIXL, RDMA), Choice(FAR_TCP, OTHER_HOST))),
        ((FAR_TCP, FAR_NIXL), "auto", ("shm", "tcp"), (Choice(FAR_TCP, OTHER_HOST),)),
        ((TCP, NIXL, SHM), "nixl", ("shm", "tcp", "nixl"), (Choice(NIXL, ASKED),)),
        ((TCP, SHM), "tcp", ("shm", "tcp"), (Choice(TCP, ASKED),)),
        ((TCP, SHM), "shm", ("shm", "tcp"), (Choice(SHM, ASKED),)),
    ],
)
def test_choices(endpoints: tuple[Endpoint, ...], wanted: str, supported: tuple[str, ...], expected: object):
    """Shared memory where both are on one host and have it, then TCP; what is wanted is the only one tried."""
    assert expected == rank_endpoints(endpoints, "here", wanted, supported)


@pytest.mark.parametrize(
    ("endpoints", "wanted", "supported", "message"),
    [
        ((), "auto", ("shm", "tcp"), "the source offers nothing"),
        ((FAR_SHM,), "auto", ("shm", "tcp"), "offers shm elsewhere, this worker has shm, tcp"),
        ((FAR_SHM, FAR_TCP), "shm", ("shm", "tcp"), "offers shm elsewhere, tcp elsewhere"),
        ((TCP,), "nixl", ("shm", "tcp"), "set link.transport to one that both have"),
        ((SHM,), "auto", ("tcp",), "offers shm on this host, this worker has tcp"),
        ((FAR_TLS,), "auto", ("shm", "tcp"), r"offers tcp\+tls elsewhere, this worker has shm, tcp"),
        ((FAR_TCP,), "auto", ("shm", "tcp+tls"), r"offers tcp elsewhere, this worker has shm, tcp\+tls"),
    ],
)
def test_no_choice(endpoints: tuple[Endpoint, ...], wanted: str, supported: tuple[str, ...], message: str):
    """The error says what was offered, what is here, and what to do."""
    with pytest.raises(TransportError, match=message):
        rank_endpoints(endpoints, "here", wanted, supported)


def test_a_host_knows_itself():
    """The id is the same each time, and not empty."""
    assert host_id() == host_id() != ""
