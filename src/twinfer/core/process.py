"""What a launcher tells the processes it starts, as one JSON line on their standard input, and what they answer.

Standard input stays open for as long as the launcher lives: its end tells a process to stop, and before that a worker
may be told there to leave at leisure. The cluster key travels
in the environment variable ``TWINFER_CLUSTER_KEY``, in hexadecimal, and never on a command line.
"""

import msgspec

from twinfer.core.capabilities import Role
from twinfer.core.config import Config, HandoffConfig, LinkConfig, ModelConfig, PoolConfig, TlsConfig
from twinfer.core.ids import ModelId, WorkerId

CLUSTER_KEY_VARIABLE = "TWINFER_CLUSTER_KEY"


class WorkerSpec(msgspec.Struct, frozen=True):
    """Everything one worker needs to know.

    Args:
        worker: its name.
        listen: address of its control plane, ``unix:/path`` or ``host:port``.
        cores: CPU cores it is pinned to; empty leaves it where it is.
        cache_dir: where prepared weights are kept.
        socket_dir: private directory for transport sockets; empty uses names without files.
        tls: certificates; with them it may be reached from other machines.
        advertise: host under which others reach it; empty where ``listen`` says it already.
        registry: directory in which it says where it is; empty for none.
        kv_port: port on which KV is offered over TCP, on the host of ``listen``; 0 takes a free one.
    """

    worker: WorkerId
    model: ModelConfig
    pool: PoolConfig
    link: LinkConfig
    handoff: HandoffConfig
    listen: str
    cores: tuple[int, ...] = ()
    cache_dir: str = ""
    socket_dir: str = ""
    tls: TlsConfig = TlsConfig()
    advertise: str = ""
    kv_port: int = 0
    registry: str = ""


class GatewaySpec(msgspec.Struct, frozen=True):
    """Everything one gateway needs to know.

    Args:
        config: the whole configuration.
        workers: control-plane address of every worker, by name.
        directories: where each model's tokenizer is, by model id.
        socket_fd: the listening socket, inherited.
        record: the deployment's description, which holds the cluster key: removed at the end, even if the launcher was
            killed and cannot do it.
        leads: whether this one of the gateways changes roles.
        roster: directory in which the launcher says which workers there are, in place of ``workers``; empty for none.
    """

    config: Config
    workers: dict[WorkerId, str]
    directories: dict[ModelId, str]
    socket_fd: int
    record: str = ""
    leads: bool = True
    roster: str = ""


class Leave(msgspec.Struct, frozen=True):
    """A further line on a worker's standard input: take nothing new, and end when all is done, or after that time."""

    within_s: float


class Standstill(msgspec.Struct, frozen=True):
    """No role is being changed, nor will one be until the launcher takes its order back.

    Args:
        order: its number.
        roles: as they are, of the workers that the order names.
    """

    order: int
    roles: dict[WorkerId, Role]


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line on a process's standard output, for its launcher.

    Args:
        stage: what it does, such as ``loading weights``; ``ready`` when it serves.
        error: why it cannot start, in one sentence.
        address: where its control plane listens, once it does.
        reaches: workers that a gateway reaches, when they are others than before.
        standstill: what the gateway that changes roles answers to an order to leave them as they are.
    """

    stage: str = ""
    error: str = ""
    address: str = ""
    reaches: tuple[WorkerId, ...] | None = None
    standstill: Standstill | None = None


READY = "ready"
