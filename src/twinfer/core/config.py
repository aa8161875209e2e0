"""The whole topology as one frozen tree: every default is written here and nowhere else.

A TOML file fills it, ``--set a.b=c`` overrides it, and unknown keys are errors. Reading text is ``core.config_text``.
"""

import math
import re
from typing import Literal

import msgspec

from twinfer.core.capabilities import Role
from twinfer.core.grant import Proof
from twinfer.core.layout import KVDtype
from twinfer.core.service import Latency, Tier

ToolFormat = Literal["auto", "hermes", "llama3", "mistral", "harmony", "none"]
ReasoningFormat = Literal["auto", "think", "harmony", "none"]
WeightFormat = Literal["checkpoint", "fp32", "bf16", "fp16", "int8", "int4"]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file; a key that is not declared is an error."""


class ModelConfig(_Table, frozen=True):
    """A served model."""

    id: str
    """Canonical id, as clients name it."""
    source: str = "demo"
    """``demo`` (the bundled model), a directory in Hugging Face format, or a Hugging Face id."""
    aliases: tuple[str, ...] = ()
    """Other names that mean this model."""
    name: str = ""
    """Shown by ListFoundationModels, at most 20 characters; made from the id when empty."""
    provider: str = ""
    """Shown by ListFoundationModels; the id's part before the first dot when empty."""
    max_context_tokens: int = 0
    """Bound on prompt and answer together; 0 takes the checkpoint's own."""
    tool_format: ToolFormat = "auto"
    """How the model writes calls of tools; ``auto`` goes by its chat template, ``none`` refuses tools."""
    reasoning_format: ReasoningFormat = "auto"
    """How the model writes what it thinks before it answers; ``auto`` goes by its chat template and tokenizer,
    ``none`` shows thoughts as text."""


class EmulationConfig(_Table, frozen=True):
    """An engine that computes nothing: KV bytes are made from the tokens, and tokens from the KV bytes present."""

    num_layers: int = 2
    """Layers that keep KV."""
    num_kv_heads: int = 2
    """KV heads of each layer."""
    head_dim: int = 8
    """Elements of a key."""
    vocab_size: int = 0
    """Token ids lie below it; 0 takes the tokenizer's."""
    draw_below: int = 0
    """Tokens are drawn below this id only, say to have answers of single letters; 0 draws from all."""
    max_context_tokens: int = 32768
    """Bound on prompt and answer together."""
    prefill_tokens_per_s: float = 0.0
    """Prompt positions computed in a second; 0 takes no time."""
    decode_step_ms: float = 0.0
    """Duration of one decode step, whatever the batch; 0 takes no time."""
    device: str = ""
    """Steps take as long as this device of the catalogue would (``twinfer devices``), instead of the two keys above."""
    devices: int = 0
    """How many of it the model lies on; 0 takes as many as the name stands for, and at least what its weights need."""
    model_shape: str = "gpt-oss-120b"
    """The model that the device is taken to run: a shape of the catalogue, or a path to a ``config.json``."""
    precision: Literal["native", "bf16", "fp8", "mxfp4", "nvfp4"] = "native"
    """Of that model's weights; ``native`` takes the published one."""
    time_scale: float = 1.0
    """Stretches the device's times, where this machine cannot keep up with it."""
    kv: Literal["real", "virtual"] = "real"
    """``virtual`` keeps and moves a fingerprint of each position, which counts, and takes its time on an emulated link,
    as the KV of ``model_shape``; ``real`` moves and counts what ``num_layers`` and so on say."""
    script: str = ""
    """Plays this text for every request instead of tokens made from the KV."""
    script_ids: tuple[int, ...] = ()
    """The same as token ids; wins over ``script``."""
    seed: int = 0
    """Another one stands for other weights: with it tokens and KV are others."""
    fail_at: int = -1
    """The engine fails each request at this output token; -1 never."""


class PoolConfig(_Table, frozen=True):
    """Workers of one model, role, engine and device."""

    name: str
    """Begins the names of its workers: ``prefill`` has ``prefill-0``, ``prefill-1`` and so on."""
    role: Role
    """Which phases its workers serve; ``both`` computes prompts for others and answers too."""
    model: str = ""
    """Id of the model; the first one when empty."""
    engine: Literal["native", "emulated"] = "native"
    """``native`` computes with torch; ``emulated`` computes nothing, see ``emulation``."""
    device: str = "cpu"
    """Any torch device, such as ``cpu``, ``cuda`` or ``cuda:1``."""
    workers: int = 1
    """Processes in the pool."""
    cores: tuple[int, ...] = ()
    """CPU cores for the whole pool, dealt out evenly; empty splits the machine's cores over all workers
    that compute, and leaves all of them to those that are emulated."""
    weights: WeightFormat = "checkpoint"
    """Precision of the weights; ``checkpoint`` keeps the file's own, and is bf16 where a quantised one names float16.
    ``int8`` and ``int4`` quantise all matrices but the embedding when weights are prepared, and compute in bf16: a CPU
    decodes as fast as it reads its weights."""
    kv_dtype: KVDtype | Literal["weights"] = "weights"
    """Element type of the KV pool; ``weights`` takes theirs. Where a source's differs, ``accept`` must name it."""
    accept: tuple[str, ...] = ()
    """Numeric provenances (``weights/kv``, such as ``bf16/fp8``) of KV it takes besides its own; ``*`` takes any."""
    kv_mib: int = 512
    """Size of the KV pool of one worker, in MiB."""
    max_pinned_fraction: float = 0.25
    """Share of that pool which one tenant's cache points may keep for their time; more is ordinary cache."""
    host_kv_mib: int = 0
    """Size of the host tier of one worker, in MiB, besides its pool: what the pool lets go of stays there, and is
    brought back when a prompt begins with it. 0 for none."""
    max_host_fraction: float = 1.0
    """Share of the host tier that one tenant may fill. Below that, the tenant with most there makes room for others."""
    block_tokens: int = 16
    """Token positions in one KV block, at least 1. Pools of one model may differ: KV is cut anew where it arrives."""
    max_step_tokens: int = 512
    """Positions computed in one step at most: the size of a prefill chunk."""
    step_goal_ms: float = 0.0
    """A step that draws tokens computes no more of prompts than keeps it within this, but some (32 positions, or 16
    more), so that nobody's next token waits longer for somebody's prompt; 0 for as many as fit. It goes by what steps
    were learned to cost, so not in an emulated pool without a device."""
    speculation: Literal["auto", "lookup", "off"] = "auto"
    """``lookup`` guesses that what followed the same words earlier follows again, computes several tokens in one step,
    and keeps those that are drawn anyway; ``auto`` does so in the native engine."""
    latency: Literal["standard", "optimized"] = "standard"
    """``optimized`` keeps the pool for requests that ask for low latency (``performanceConfig``), and those for it."""
    max_running: int = 64
    """Sequences in one step at most."""
    max_waiting: int = 1024
    """Requests in the queue at most; past that the worker is busy."""
    addresses: tuple[str, ...] = ()
    """Workers started by hand (``twinfer worker --listen``), as ``host:port``; then none are started here. On other
    machines they need ``[tls]``."""
    emulation: EmulationConfig = EmulationConfig()

    def __post_init__(self) -> None:
        if not 0.0 <= self.step_goal_ms < math.inf:
            raise ValueError(f"step_goal_ms of pool {self.name} has to be a number of milliseconds, or 0 for no goal")


class LinkEmulationConfig(_Table, frozen=True):
    """A link that is not here: KV takes as long as it would there, or as long as it takes here where that is more."""

    device: str = ""
    """A link of the catalogue (``twinfer devices``); empty for none."""
    lanes: int = 1
    """So many of it side by side."""
    time_scale: float = 1.0
    """Stretches its times, as that of a pool does its device's."""


class LinkConfig(_Table, frozen=True):
    """How KV travels."""

    transport: Literal["auto", "shm", "tcp", "nixl"] = "auto"
    """``auto`` takes shared memory on one host, else NIXL where RDMA is and the network is trusted, else TCP, encrypted
    where there is ``[tls]``."""
    max_in_flight_mib: int = 64
    """Bytes a sink pulls at once from one peer."""
    tcp_connections: int = 1
    """Connections over which one large pull is dealt out."""
    nixl_backend: Literal["UCX", "LIBFABRIC"] = "UCX"
    """NIXL's plugin; ``LIBFABRIC`` is for EFA."""
    trust_network: bool = False
    """Lets NIXL use RDMA or a public address: whoever reaches it there can read and write a worker's memory."""
    throttle_mb_per_s: float = 0.0
    """Slows the link down on purpose, for experiments; 0 does not."""
    emulation: LinkEmulationConfig = LinkEmulationConfig()


class HandoffConfig(_Table, frozen=True):
    """Deadlines and sizes of the handoff protocol."""

    lease_s: float = 10.0
    """A side that hears nothing of a handoff for that long frees what it holds for it."""
    heartbeat_s: float = 2.0
    """How often each side says which handoffs it still holds; well below ``lease_s``."""
    chunk_kib: int = 2048
    """Bytes in one offered chunk, at most (at least one block)."""
    commit: Proof = Proof.DIGEST
    """What commits into a worker rest on: ``digest`` of all bytes, or ``generation``, the source's word that its blocks
    were not reused, where digests are dear and the link is trusted."""
    max_parked_fraction: float = 0.5
    """Share of the source's pool that finished, not yet passed prompts may hold before it refuses new ones."""
    max_attempts: int = 3
    """Plans that may fail for one request before its client gets the error; one that never began does not count."""
    allow_isolation: bool = False
    """Whether ``twinfer chaos`` may cut a worker off from the others for a while."""
    drain_s: float = 2.0
    """A worker that changes its role, or is told to stop, lets what it has finish for that long; what is left then goes
    on elsewhere."""
    max_busy_s: float = 10.0
    """How long a request waits for room on a busy worker, or for a worker to come, before its client gets 503.
    An answer that has begun waits for room until its deadline."""


class TlsConfig(_Table, frozen=True):
    """Certificates for workers and gateways on different machines; ``twinfer certs`` makes them.

    With them every TCP connection between workers and gateways is TLS 1.3 with certificates on both sides. Without,
    workers and gateways talk within one machine only.
    """

    ca: str = ""
    """File of the cluster's certificate authority, in PEM."""
    cert: str = ""
    """File of this process's certificate: a worker's for workers, a gateway's for gateways."""
    key: str = ""
    """File of its private key."""

    def __post_init__(self) -> None:
        if self.enabled and not (self.ca and self.cert and self.key):
            raise ValueError("[tls] needs all of `ca`, `cert` and `key`, or none of them")

    @property
    def enabled(self) -> bool:
        """Whether any is given."""
        return bool(self.ca or self.cert or self.key)

    @property
    def files(self) -> tuple[str, str, str]:
        """Authority, certificate and key."""
        return self.ca, self.cert, self.key


class RoutingConfig(_Table, frozen=True):
    """When a request is split over two workers."""

    policy: Literal["cost", "threshold", "aggregated", "disaggregated"] = "cost"
    """``cost`` predicts each choice of workers from measured times and takes the one that makes the fewest requests
    miss the two goals below, or goes by ``threshold`` as long as no worker reported costs; ``threshold`` splits prompts
    of ``min_remote_tokens`` and more; the other two always do the same."""
    ttft_goal_ms: float = 2000.0
    """Time to the first token that a route should hold."""
    tpot_goal_ms: float = 100.0
    """Time per token after it that a route should hold."""
    min_remote_tokens: int = 64
    """Disaggregated when at least that many prompt tokens are not cached on the decode worker."""
    min_fetch_tokens: int = 128
    """A prefill worker fetches the prompt's beginning from the decode worker when at least that many more tokens of it
    are cached there, as after an earlier turn of a chat; 0 never does."""
    max_optimized_tokens: int = 0
    """Prompt and longest answer up to which a request is served with low latency, where there is a pool for that; 0 for
    any length."""
    allow_forced: bool = True
    """Whether the request header ``x-twinfer-route`` is obeyed."""

    @property
    def least_remote_tokens(self) -> int:
        """From how many uncached tokens on a prompt that is to be split is split."""
        return 1 if self.policy == "disaggregated" else self.min_remote_tokens

    def __post_init__(self) -> None:
        if not (self.ttft_goal_ms > 0 and self.tpot_goal_ms > 0):
            raise ValueError("ttft_goal_ms and tpot_goal_ms have to be above 0")


class ElasticConfig(_Table, frozen=True):
    """Workers whose role follows the load."""

    enabled: bool = False
    """Whether roles are changed; ``twinfer serve --elastic`` sets it."""
    prefill_tokens: int = 2048
    """Prompt positions waiting on each prefill worker that are a pressure of 1 on prefill, if it tells no costs."""
    decode_requests: int = 16
    """Answers under way on each decode worker that are a pressure of 1 on decode, if it tells no costs."""
    high: float = 0.8
    """Workers change their role when the pressure on a phase is at least that, on average over ``window_s`` or, where
    it steadily gets less, as it will be ``cooldown_s`` later,"""
    bearable: float = 0.8
    """and that on either phase would be at most this share of it afterwards; as many as is best."""
    window_s: float = 1.0
    """How long is looked back."""
    cooldown_s: float = 5.0
    """How long nothing is changed after a change."""

    def __post_init__(self) -> None:
        if not 0 < self.bearable < 1 or self.high <= 0 or min(self.prefill_tokens, self.decode_requests) < 1:
            raise ValueError(
                "[elastic] needs high above 0, bearable between 0 and 1, and the two pressures of 1 to be at least 1"
            )


class GatewayConfig(_Table, frozen=True):
    """The front door."""

    count: int = 1
    """Gateway processes on the one port; clients of one that dies lose their connection, those of others do not."""
    host: str = "127.0.0.1"
    """Address to listen on; only loopback, as long as there is no key (`twinfer keys`)."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    region: str = "us-east-1"
    """Region in ARNs."""
    account: str = "000000000000"
    """Account in ARNs."""
    max_body_bytes: int = 25_000_000
    """Size of a request's body at most; past that the answer is 413."""
    request_timeout_s: float = 600.0
    """Time for a whole answer; past that it ends with an error."""
    client_timeout_s: float = 60.0
    """A client that sends no more of its body for so long, or takes nothing of its answer, has left; noticed within
    twice this time."""
    first_token_timeout_s: float = 20.0
    """A stream's status is held back that long for a first token; then it starts without one."""
    pad_events: bool = True
    """Events of Bedrock's streams over TLS carry a field of random length, which hides how long their text is."""
    max_requests: int = 1024
    """Requests in work at most, past that the answer is 503; those of the reserved tier have as many places of their
    own."""
    flex_share: float = 0.5
    """Part of them from which on requests of the flex tier are answered with 503."""
    tls_cert: str = ""
    """File of the certificate that clients see, in PEM, with those in between; without, the endpoint is plain HTTP."""
    tls_key: str = ""
    """File of its private key."""
    http2: bool = True
    """Speak HTTP/2, too, where the package ``zttp`` is installed: over TLS by ALPN, else by prior knowledge."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError("gateway.count is the number of gateway processes; set at least 1")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("[gateway] needs both of `tls_cert` and `tls_key`, or none of them")


class IdentityConfig(_Table, frozen=True):
    """Keys (``twinfer keys``) and what signatures are accepted."""

    database: str = ""
    """URL of the keys' database: ``sqlite:///FILE`` or ``postgresql://USER@HOST/NAME``. Empty means
    ``$TWINFER_DATABASE_URL``, else SQLite in ``~/.local/share/twinfer/twinfer.db``."""
    key_file: str = ""
    """File of the key that seals secrets in it, unless ``$TWINFER_DATABASE_KEY`` holds it; empty means beside SQLite's
    file, else ``~/.local/share/twinfer/database.key``."""
    required: bool = False
    """Keys are needed even on loopback, and even before the first one exists."""
    refresh_s: float = 2.0
    """How often a gateway looks for new and revoked keys."""
    max_stale_s: float = 300.0
    """Keys that were read longer ago than that, because the database is away, open nothing."""
    regions: tuple[str, ...] = ()
    """Regions that signatures and short-term keys may be for; empty takes signatures for any, and short-term keys for
    ``gateway.region``."""
    max_skew_s: float = 300.0
    """How far a client's clock may be from ours."""
    allow_unsigned_payload: bool = False
    """Whether a signature may leave out the body (``UNSIGNED-PAYLOAD``); only over TLS is that safe."""


class ProfileConfig(_Table, frozen=True):
    """An application inference profile: a name, by its ARN, for a model as one tenant uses it for one purpose."""

    id: str
    """Last part of its ARN: 1 to 64 of ``a-z``, ``A-Z``, ``0-9`` and ``-``."""
    model: str
    """Id of the model."""
    tenant: str = "default"
    """Whose it is; to others there is no such profile."""
    tier: Tier = Tier.DEFAULT
    """Served so, unless a request says otherwise."""
    latency: Latency = Latency.STANDARD
    """The same for the latency mode."""
    first_token_ms: float = 0.0
    """Time to the first token that is promised; later ones are counted, and what would come too late for certain is
    answered with 503 at once. 0 promises none."""

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-zA-Z0-9-]{1,64}", self.id):
            raise ValueError(f"[[profile]] has the id {self.id!r}; write 1 to 64 letters, digits and '-'")


class InvocationLogConfig(_Table, frozen=True):
    """A file with one line of JSON for each request, in the form of Bedrock's model invocation logs."""

    file: str = ""
    """It grows at its end; empty keeps none."""
    prompts: bool = False
    """Requests' bodies and answers' texts are in it, too."""


class QuotaConfig(_Table, frozen=True):
    """What tenants may use of models in a minute, of all gateways of a machine together; the first that fits decides,
    without one there is no bound."""

    tenant: str = "*"
    """Pattern with `*` and `?`; each tenant that fits has a quota of its own."""
    model: str = "*"
    """The same for models, by their ids."""
    requests_per_min: int = 0
    """Requests in a minute; 0 for any number."""
    tokens_per_min: int = 0
    """Tokens in a minute, prompt and answer together: reserved by the longest answer, settled by what was used, cache
    reads free; 0 for any number."""
    reserved_tokens_per_min: int = 0
    """The same for the reserved tier, apart from the others; 0 for none of it."""


class UsageConfig(_Table, frozen=True):
    """The ledger: one record for each request, in the database that ``identity`` names."""

    enabled: bool = True
    """Keep it."""
    prices: str = ""
    """Price file in TOML, see docs/usage.md; without one nothing has a cost."""
    flush_s: float = 0.5
    """How often a gateway writes what has come together, and notes in its day book what running requests have used."""
    max_waiting: int = 100_000
    """Records that wait in a gateway at most while the database is away; further ones are counted as lost and logged,
    and written from the day book when the next gateway starts."""
    spool: str = ""
    """Directory of the day book, on a disk of this machine, shared by its gateways; empty means beside the database's
    key file."""


class Config(_Table, frozen=True):
    """Everything."""

    model: tuple[ModelConfig, ...] = (ModelConfig(id="twinfer.demo-v1:0", name="Twinfer Demo"),)
    pool: tuple[PoolConfig, ...] = (
        PoolConfig(name="prefill", role=Role.PREFILL, weights="fp32"),
        PoolConfig(name="decode", role=Role.DECODE, weights="fp32"),
    )
    link: LinkConfig = LinkConfig()
    handoff: HandoffConfig = HandoffConfig()
    routing: RoutingConfig = RoutingConfig()
    elastic: ElasticConfig = ElasticConfig()
    gateway: GatewayConfig = GatewayConfig()
    identity: IdentityConfig = IdentityConfig()
    usage: UsageConfig = UsageConfig()
    quota: tuple[QuotaConfig, ...] = ()
    profile: tuple[ProfileConfig, ...] = ()
    invocation_log: InvocationLogConfig = InvocationLogConfig()
    tls: TlsConfig = TlsConfig()
    registry: str = ""
    """Directory in which workers started by hand (``twinfer worker``) say where they are, and where gateways look for
    them, so that they join and leave at run time; yours alone to write to."""
    cache_dir: str = ""
    """Prepared weights go here; empty means ``$TWINFER_CACHE``, else ``~/.cache/twinfer``."""
