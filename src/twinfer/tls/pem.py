"""Certificates and keys from bytes that were read once: files may be replaced at any moment, one after the other."""

import contextlib
import os
import ssl
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

_PAUSES_S = (0.05, 0.1, 0.2)

Result = TypeVar("Result")


def load_authority(context: ssl.SSLContext, authority: bytes) -> None:
    """Trust whom these PEM certificates sign.

    Raises:
        ssl.SSLError: they are none.
    """
    with _as_file(authority) as path:
        context.load_verify_locations(path)


def load_chain(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Show this PEM certificate, with those in between.

    Raises:
        ssl.SSLError: it is none, or the key is another's or locked.
    """
    with _as_file(certificate) as shown, _as_file(key) as own:
        # Without a password at hand OpenSSL would ask the terminal for one.
        context.load_cert_chain(shown, own, password=lambda: "")


def settled(read: Callable[[], Result]) -> Result:
    """What this reads of files; again for a moment where certificate and key differ, since one may be yet to come.

    Raises:
        ssl.SSLError: as ``read`` does.
    """
    for pause_s in _PAUSES_S:
        try:
            return read()
        except ssl.SSLError as error:
            if not (error.reason or "").endswith("_MISMATCH"):
                raise
        time.sleep(pause_s)
    return read()


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path for Python's ``ssl``, which takes nothing else; only this process's, and never on a disk."""
    descriptor = os.memfd_create("pem")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
