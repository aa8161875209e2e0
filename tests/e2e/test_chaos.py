"""``twinfer chaos`` against a real deployment: clean where all is well, and able to find what is not."""

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.deployment import Deployment, eventually, serving
from twinfer.chaos.client import ask, fresh_salt, open_client
from twinfer.chaos.judge import Heard, Judgement, Verdict
from twinfer.chaos.load import Answer, Exam, Load
from twinfer.chaos.oracle import Drawn
from twinfer.chaos.processes import Processes
from twinfer.chaos.prompts import make_questions
from twinfer.cluster.deployment import RECORD, read_record
from twinfer.core.errors import ConfigError

LEASE_S = 2.0
EMULATED_ID = "twinfer.emulated-v1:0"
MODEL = f'[[model]]\nid = "{EMULATED_ID}"\n'
POOL = """
[[pool]]
name = "{name}"
role = "{role}"
engine = "emulated"
kv_mib = 8
workers = {workers}
max_step_tokens = 128
emulation = {{ {emulation} }}
"""
PREFILL = POOL.format(name="prefill", role="prefill", workers=2, emulation="prefill_tokens_per_s = 4000")
DECODE = POOL.format(name="decode", role="decode", workers=2, emulation="decode_step_ms = 5")
HANDOFF = (f"handoff.lease_s={LEASE_S}", "handoff.heartbeat_s=0.5", "handoff.chunk_kib=16")


@pytest.fixture(scope="module")
def healthy(place: Path) -> Iterator[Deployment]:
    """Two workers of each kind, whose streams last for a while, and which may be isolated."""
    sets = (*HANDOFF, "handoff.allow_isolation=true")
    with serving(place / "healthy", MODEL + PREFILL + DECODE, *sets) as deployment:
        yield deployment


def start_chaos(deployment: Deployment, *arguments: str) -> subprocess.Popen[str]:
    """The command, as a user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "twinfer", "chaos", deployment.url, *arguments],
        env=os.environ | {"TMPDIR": str(deployment.directory), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def chaos(deployment: Deployment, *arguments: str) -> tuple[int, str, Any]:
    """Its exit code, what it said, and its JSON."""
    result = deployment.directory / "result.json"
    process = start_chaos(deployment, "--json", str(result), *arguments)
    said, _ = process.communicate()
    return process.returncode, said, json.loads(result.read_bytes()) if result.exists() else None


def record_of(deployment: Deployment) -> Path:
    """The file by which it is found."""
    return next(deployment.directory.glob(f"twinfer-*/{RECORD}"))


@pytest.mark.timeout(600)
def test_a_healthy_deployment_is_clean(healthy: Deployment) -> None:
    """Nearly every kind of event on every role: no wrong text, nothing stuck, no block lost; the table says so."""
    before = read_record(record_of(healthy)).pids
    code, said, result = chaos(healthy, "--events", "13", "--prompts", "8", "--clients", "4")
    assert code == 0, said
    assert (result["clean"], result["findings"], result["bad"]) == (True, [], []), said
    assert {(row["kind"], row["events"]) for row in result["rows"] if row["events"]} == {
        (kind, 1) for kind in ("kill", "pause", "long pause", "partition", "long partition")
    }
    assert result["total"]["events"] == 13
    assert result["total"]["in_flight"] >= 13
    assert result["total"]["right"] > 13
    assert result["handed_over"] > 0
    assert "CLEAN: 13 of 13 events" in said
    after = read_record(record_of(healthy)).pids
    assert {name for name in after if after[name] != before[name]} == set(result["restarts"])
    assert sum(result["restarts"].values()) == 3
    healthy.wait_idle()


@pytest.mark.timeout(300)
def test_ctrl_c_leaves_no_process_stopped(healthy: Deployment) -> None:
    """In the middle of a pause: everything goes on, and what was found so far is shown."""
    process = start_chaos(healthy, "--events", "1000", "--prompts", "1", "--clients", "2", "--seed", "4")

    def stopped() -> int | None:
        pids = read_record(record_of(healthy)).pids.values()
        return next((pid for pid in pids if state_of(pid) == "T"), None)

    pid = eventually(stopped, "a stopped process", 120)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    assert state_of(pid) not in ("T", "?")
    assert re.search(r"CLEAN.*of 1000 events", said), said
    assert "Traceback" not in said
    assert process.returncode == 130, said
    healthy.wait_workers()
    healthy.wait_idle()


def state_of(pid: int) -> str:
    """The kernel's letter for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "?"


@pytest.mark.timeout(300)
def test_wrong_text_is_found(place: Path) -> None:
    """A decode worker that plays an answer of its own: found by its tokens as soon as it gets a request."""
    liar = POOL.format(name="zliar", role="decode", workers=1, emulation='decode_step_ms = 5, script = "Trust me."')
    decode = DECODE.replace("workers = 2", "workers = 1")
    with serving(place / "liar", MODEL + PREFILL + decode + liar, *HANDOFF) as deployment:
        code, said, result = chaos(deployment, "--events", "2", "--prompts", "4", "--clients", "4", "--seed", "1")
    assert code == 1, said
    assert not result["clean"]
    assert "NOT CLEAN" in said
    found = [*result["findings"], *(bad["reason"] for bad in result["bad"])]  # it may be met before the load begins
    assert any("instead of" in sentence for sentence in found), said
    assert "No partitions: for these, start it with --set handoff.allow_isolation=true" in said


async def test_an_altered_reference_makes_every_answer_wrong(healthy: Deployment) -> None:
    """One token of one reference: the load finds it, and finds nothing with the reference as it was."""
    question = make_questions(1, 0)[0]
    async with open_client(healthy.url, 60) as client:
        reference = Heard()
        await ask(client, EMULATED_ID, question, fresh_salt(), reference)
        altered = Heard(
            [Drawn(b"?", place.best) if number == 7 else place for number, place in enumerate(reference.drawn)],
            reference.text,
            reference.finish,
            reference.usage,
        )
        for expected, heard in ((Verdict.RIGHT, reference), (Verdict.WRONG, altered)):
            verdicts: list[Verdict] = []

            def note(_: Answer, judgement: Judgement, verdicts: list[Verdict] = verdicts) -> None:
                verdicts.append(judgement.verdict)

            load = Load(client, Exam(EMULATED_ID, [question], [heard], ["decode-0"]), 2, 0, note)
            while not verdicts:
                load.check()
                await asyncio.sleep(0.01)
            await load.finish()
            assert set(verdicts) == {expected}


async def test_isolation_needs_permission(place: Path) -> None:
    """A worker refuses it, with the sentence that helps; nobody but the owner can read the description."""
    with serving(place / "strict", MODEL + PREFILL + DECODE) as deployment:
        path = record_of(deployment)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.parent.name.startswith(f"twinfer-{deployment.url.rpartition(':')[2]}-")
        processes = Processes(path, read_record(path))
        assert set(processes.pids().values()) == set(deployment.children)
        with pytest.raises(ConfigError, match=r"isolation is not allowed here: .*handoff\.allow_isolation=true"):
            await processes.isolate("decode-0", 1.0)
    assert not path.exists()
