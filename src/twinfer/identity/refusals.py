"""Why nobody is let in; ``gateway.errors`` knows how each API words them."""

from twinfer.core.errors import Unauthenticated


class MissingToken(Unauthenticated):
    """The request names no identity at all."""

    def __init__(self) -> None:
        super().__init__("Missing Authentication Token")


class IncompleteSignature(Unauthenticated):
    """It has a signature's parts, but not all, or not in their form."""


class UnrecognizedClient(Unauthenticated):
    """Nobody has this key, or it was revoked, or its session token is another."""

    def __init__(self) -> None:
        super().__init__("The security token included in the request is invalid.")


class InvalidSignature(Unauthenticated):
    """The key's holder did not sign this, or not now."""


class ExpiredToken(Unauthenticated):
    """It was valid once."""

    def __init__(self) -> None:
        super().__init__("The security token included in the request is expired")


class InvalidBearer(Unauthenticated):
    """No such bearer key, or not here, or no longer."""

    def __init__(self) -> None:
        super().__init__("Authentication failed: Please make sure your API Key is valid.")
