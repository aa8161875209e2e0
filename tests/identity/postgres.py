"""A PostgreSQL server of one's own: made in a directory, reached by a socket in it, gone at the end."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_PLACES = "/usr/lib/postgresql/*/bin"
_OWNERS = ("postgres", "nobody")


def _program(name: str) -> str | None:
    found = sorted(Path("/").glob(f"{_PLACES.lstrip('/')}/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of an empty database. PostgreSQL refuses to run as root, who becomes somebody else for it."""
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    # Directly below /tmp: a socket's path may have 107 bytes, and its owner must be able to come there.
    with tempfile.TemporaryDirectory(prefix="twinfer-pg-", dir="/tmp") as name:
        directory = Path(name)
        account = None if os.geteuid() else next(pwd.getpwnam(owner) for owner in _OWNERS if _exists(owner))
        user = account.pw_name if account else pwd.getpwuid(os.geteuid()).pw_name
        if account:
            os.chown(directory, account.pw_uid, account.pw_gid)
        data = directory / "data"

        def run(*command: str) -> None:
            with (directory.parent / f"{directory.name}.log").open("ab") as log:
                try:
                    subprocess.run(
                        command,
                        check=True,
                        cwd="/",
                        user=account.pw_uid if account else None,
                        group=account.pw_gid if account else None,
                        extra_groups=[] if account else None,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        timeout=60,
                    )
                except subprocess.CalledProcessError as error:
                    raise AssertionError(Path(log.name).read_text()) from error

        options = f"-k {directory} -c listen_addresses= -c fsync=off"
        try:
            run(initdb, "-D", str(data), "-A", "trust", "-U", user, "-E", "UTF8", "--no-sync", "--no-instructions")
            run(pg_ctl, "-D", str(data), "-w", "-t", "50", "-l", f"{directory}/server.log", "-o", options, "start")
            try:
                yield f"postgresql://{user}@/postgres?host={directory}"
            finally:
                run(pg_ctl, "-D", str(data), "-w", "-m", "immediate", "stop")
        finally:
            Path(f"{directory}.log").unlink(missing_ok=True)


def _exists(owner: str) -> bool:
    try:
        pwd.getpwnam(owner)
    except KeyError:
        return False
    return True
