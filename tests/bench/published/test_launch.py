"""Programs are started, waited for, and ended with all of their children; who does not start says why."""

import contextlib
import socket
import sys
import time
from pathlib import Path

import pytest
from bench.published.campaign import free_ports
from bench.published.launch import Program, StartError, running

SERVER = """
import http.server, os, pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[2]).write_text(f"{os.getpid()} {child.pid}")
class Models(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Models).serve_forever()
"""


def server(folder: Path) -> Program:
    """Answers, and has a child that would live on."""
    port = next(free_ports())
    return Program("server", [sys.executable, "-c", SERVER, str(port), str(folder / "pids")], port, "/")


def alive(pid: int) -> bool:
    """Whether there is such a process that is not only waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def interrupted(folder: Path) -> list[int]:
    """Ctrl-C while a program runs; it and its child, which were alive then."""
    pids: list[int] = []
    with contextlib.suppress(KeyboardInterrupt), running([server(folder)], folder) as url:
        assert url.startswith("http://127.0.0.1:")
        pids += [int(word) for word in (folder / "pids").read_text().split()]
        assert [True, True] == [alive(pid) for pid in pids]
        raise KeyboardInterrupt
    return pids


def test_everything_ends(tmp_path: Path) -> None:
    """After an interruption neither a program nor its child is left."""
    pids, deadline = interrupted(tmp_path), time.monotonic() + 10
    while any(alive(pid) for pid in pids):  # the system takes a moment to clear away what was killed
        assert time.monotonic() < deadline


def test_one_that_ends(tmp_path: Path) -> None:
    """The reason is the line of its log that names an error; a program that did start is ended."""
    failing = "print('ValueError: no such model'); print('bye'); raise SystemExit(3)"
    programs = [server(tmp_path), Program("broken", [sys.executable, "-c", failing], next(free_ports()), "/")]
    with pytest.raises(StartError, match="broken ended with 3: ValueError: no such model"), running(programs, tmp_path):
        pass
    assert not alive(int((tmp_path / "pids").read_text().split()[0]))


def test_one_that_is_not_there(tmp_path: Path) -> None:
    """A program that is not installed is said to be."""
    missing = Program("missing", [str(tmp_path / "program")], 1, "/")
    with pytest.raises(StartError, match="cannot be run: No such file"), running([missing], tmp_path):
        pass


def test_one_that_never_answers(tmp_path: Path) -> None:
    """Patience has an end."""
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    slow = Program("slow", sleeping, next(free_ports()), "/", patience_s=0.1)
    with pytest.raises(StartError, match=r"slow was not ready within 0\.1 s"), running([slow], tmp_path):
        pass


def test_ports_are_free() -> None:
    """They can be listened on, and no two are the same."""
    ports = free_ports()
    found = [next(ports) for _ in range(8)]
    with socket.create_server(("127.0.0.1", found[0])):
        pass
    assert 8 == len(set(found))
