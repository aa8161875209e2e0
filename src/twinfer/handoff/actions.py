"""What the source's and the sink's state machines ask their worker to do. Order within one answer matters."""

from dataclasses import dataclass
from typing import TypeAlias

from twinfer.core.manifest import Chunk
from twinfer.core.messages import FailureKind, ToSink, ToSource
from twinfer.core.tokens import Token


@dataclass(frozen=True, slots=True)
class Bind:
    """Turn the promise into blocks."""


@dataclass(frozen=True, slots=True)
class Pull:
    """Read a chunk from the source into the bound blocks, and report the digest of what arrived, if there is one."""

    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Commit:
    """The KV is whole: let the engine decode from this token on, or keep the KV as cache if there is none."""

    first_token: Token | None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Give back what is held. With ``landing``, fence the transport and only then free the blocks."""

    landing: bool
    reason: str
    kind: FailureKind = FailureKind.HANDOFF


@dataclass(frozen=True, slots=True)
class TellSource:
    """Send to the source worker, if it can be reached."""

    message: ToSource


@dataclass(frozen=True, slots=True)
class TellSink:
    """Send to the sink worker, if it can be reached."""

    message: ToSink


@dataclass(frozen=True, slots=True)
class Digest:
    """Allow these pool blocks to be read, and report their digest."""

    index: int
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Show:
    """Allow these pool blocks to be read."""

    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """Forbid further reads and let the blocks become ordinary cache."""


SinkAction: TypeAlias = Bind | Pull | Commit | GiveUp | TellSource
SourceAction: TypeAlias = Digest | Show | Release | TellSink
