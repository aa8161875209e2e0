"""The door: who is calling. Loopback is open until the first key exists; from then on everybody shows one.

A door that was shut stays shut for the life of the process, whatever becomes of the database.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from twinfer.core.clock import Clock
from twinfer.core.config import Config
from twinfer.core.errors import CapacityError, Forbidden
from twinfer.identity.keyring import Keyring
from twinfer.identity.principal import ANYBODY, Principal
from twinfer.identity.sigv4 import Head
from twinfer.identity.verify import Claim, Terms, Verifier, claim_of

_LONG_BODY = 262_144
"""Bytes from which a body is digested beside the event loop instead of in it."""


class Door(Protocol):
    """Decides who comes in."""

    def claim(self, head: Head) -> Claim | None:
        """What a request says of itself, before its body is read; ``None`` where nobody asks.

        Raises:
            Unauthenticated: it cannot be right.
        """
        ...

    async def principal(self, claim: Claim | None, head: Head, body: bytes) -> Principal:
        """Who it is.

        Raises:
            Unauthenticated: the claim is not proven.
            CapacityError: whether it is cannot be said now.
        """
        ...


class OpenDoor:
    """Lets anybody in."""

    def claim(self, head: Head) -> Claim | None:
        """Nobody asks."""
        return None

    async def principal(self, claim: Claim | None, head: Head, body: bytes) -> Principal:
        """Anybody."""
        return ANYBODY


class GuardedDoor:
    """Asks for keys, once there are any.

    Args:
        shut: whether to ask even before there are.
        max_stale_s: keys read longer ago than that open nothing: they may have been revoked.
        clock: tells how long ago keys were read.
        unix_now: Unix seconds, which signatures speak of.
    """

    def __init__(
        self,
        terms: Terms,
        shut: bool,
        max_stale_s: float,
        clock: Clock,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        self._verifier = Verifier(Keyring(), terms)
        self._shut = shut
        self._max_stale_s = max_stale_s
        self._clock = clock
        self._now = unix_now
        self._read_at = clock.now()

    @property
    def shut(self) -> bool:
        """Whether everybody has to show a key."""
        return self._shut

    def renew(self, keys: Keyring | None, any_ever: bool) -> None:
        """The database was read just now; ``None`` where nothing has changed."""
        self._read_at = self._clock.now()
        self._shut = self._shut or any_ever
        if keys is not None:
            self._verifier = Verifier(keys, self._verifier.terms)

    def claim(self, head: Head) -> Claim | None:
        """What a request says of itself."""
        return claim_of(head, self._verifier.terms, self._now()) if self._shut else None

    async def principal(self, claim: Claim | None, head: Head, body: bytes) -> Principal:
        """Who it is, by the keys of this moment."""
        if claim is None:
            if self._shut:  # since the request began
                claim = claim_of(head, self._verifier.terms, self._now())
            else:
                return ANYBODY
        if self._clock.now() - self._read_at > self._max_stale_s:
            raise CapacityError("The keys' database cannot be read at the moment; try again later.")
        if len(body) >= _LONG_BODY:
            return await asyncio.to_thread(self._verifier.principal, claim, head, body, self._now())
        return self._verifier.principal(claim, head, body, self._now())


def terms_of(config: Config) -> Terms:
    """What the configuration accepts."""
    identity = config.identity
    return Terms(config.gateway.region, identity.regions, identity.max_skew_s, identity.allow_unsigned_payload)


def permit(principal: Principal, action: str, model: str | None = None) -> None:
    """See that somebody may do this, to this model where one is named.

    Raises:
        Forbidden: he may not.
    """
    if not principal.policy.allows(action, model):
        target = f" on {model}" if model else ""
        raise Forbidden(f"The key {principal.key_id} is not authorized to perform: {action}{target}.")
