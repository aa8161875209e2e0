"""The keys a gateway knows at a moment, and a stand-in with which refusing takes as long as accepting."""

import secrets
from collections.abc import Iterable

from twinfer.identity.credential import Credential, digest, issue
from twinfer.identity.principal import ANYBODY
from twinfer.identity.sigv4 import CredentialScope, signing_key


class Keyring:
    """Credentials by access key id and by bearer key. A new database state is a new keyring.

    Args:
        credentials: those that are not revoked; expired ones included, so that their holders learn why.
        pepper: keys the digests of bearer keys and session tokens.
    """

    def __init__(self, credentials: Iterable[Credential] = (), pepper: bytes = b"") -> None:
        self._pepper = pepper or secrets.token_bytes(32)
        self._by_id = {each.key_id: each for each in credentials}
        self._by_bearer = {each.bearer_digest: each for each in self._by_id.values() if each.bearer_digest}
        self._nobody = Credential(ANYBODY, issue().secret)

    def __len__(self) -> int:
        return len(self._by_id)

    def by_bearer(self, token: str) -> Credential | None:
        """Whose long-term bearer key this is. Found by a keyed digest: how long that takes says nothing of the key."""
        return self._by_bearer.get(digest(self._pepper, token))

    def session_digest(self, token: str) -> bytes:
        """What a credential's ``session_digest`` must be for this token; empty for none."""
        return digest(self._pepper, token) if token else b""

    def signer(self, scope: CredentialScope) -> tuple[Credential | None, bytes]:
        """The holder of a key id, and the signing key of a scope. For an unknown id it is one that nobody has.

        Signing keys are not kept: whether one was would show in the time of a refusal, for a hundredth of a request's.
        """
        credential = self._by_id.get(scope.key_id)
        return credential, signing_key((credential or self._nobody).secret, scope)
