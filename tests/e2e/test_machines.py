"""A gateway, a prefill worker and a decode worker on three machines, which trust each other by certificates only.

The machines are network namespaces: each pair has a cable of its own, so that one can be pulled out. Both workers
listen on all their addresses and advertise the one that the other worker reaches.
"""

import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.certificates import Cluster
from tests.e2e.deployment import Deployment, eventually
from tests.e2e.namespaces import Cable, Machine, connect, machines, why_not
from tests.fakes import expected_output
from twinfer.core.config import EmulationConfig
from twinfer.gateway.models import ServedModel
from twinfer.gateway.text.conversation import Conversation, say

DEMO = "twinfer.demo-v1:0"
NUM_TOKENS = 16
PREFILL_TOKENS_PER_S = 1000
"""So slow that a cable can be pulled out in mid-prefill."""
LEASE_S = 4.0
HOSTS = ("10.231.0.2", "10.231.1.2", "10.231.2.1", "10.231.2.2")
"""Of both workers, each on two cables."""
POOL = """
[[pool]]
name = "{name}"
role = "{name}"
engine = "emulated"
kv_mib = 8
max_step_tokens = 128
addresses = ["{host}:7001"]
emulation = {{ vocab_size = {vocab_size}, prefill_tokens_per_s = {speed} }}
"""
CONFIG = """
[handoff]
lease_s = {lease_s}
heartbeat_s = 0.5

[tls]
ca = "{tls.ca}"
cert = "{tls.cert}"
key = "{tls.key}"
"""


@dataclass(frozen=True)
class Site:
    """Three machines at work.

    Attributes:
        cable: between the two workers.
        directory: where each has its certificate, bound to its name.
    """

    front: Machine
    cable: Cable
    gateway: Deployment
    prefill: Deployment
    decode: Deployment
    directory: Path

    def ask(self, prompt: str) -> dict[str, Any]:
        """A greedy answer, with its tokens."""
        body = {
            "model": DEMO,
            "max_tokens": NUM_TOKENS,
            "temperature": 0,
            "logprobs": True,
            "messages": [{"role": "user", "content": prompt}],
        }
        with self.front.inside():
            answer = httpx.post(f"{self.gateway.url}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def series(self, name: str, worker: str, **labels: str) -> float:
        """A worker's metric of this moment."""
        with self.front.inside():
            text = httpx.get(f"{self.gateway.url}/metrics", timeout=10).text
        wanted = {f'{key}="{value}"' for key, value in (labels | {"worker": worker}).items()}
        for line in text.splitlines():
            if (match := re.fullmatch(rf"twinfer_worker_{name}{{(.*)}} (\S+)", line)) and wanted <= set(
                match[1].split(",")
            ):
                return float(match[2])
        return 0.0

    def wait_idle(self) -> None:
        """Return when both workers hold nothing for anybody."""
        with self.front.inside():
            self.gateway.wait_idle()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, demo_model: ServedModel) -> Iterator[Site]:
    """Up and ready; afterwards ended in order, and its machines removed."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("m")
    shown = {name: cluster.named(directory / f"{name}-tls", f"{name}-0", hosts=HOSTS) for name in ("prefill", "decode")}
    size = demo_model.vocab_size
    pools = POOL.format(name="prefill", host="10.231.0.2", speed=PREFILL_TOKENS_PER_S, vocab_size=size)
    pools += POOL.format(name="decode", host="10.231.1.2", speed=0, vocab_size=size)
    for name, tls in (*shown.items(), ("gateway", cluster.gateway)):
        (directory / f"{name}.toml").write_text(pools + CONFIG.format(lease_s=LEASE_S, tls=tls))
    with ExitStack() as stack:
        front, left, right = stack.enter_context(machines(3))
        connect(front, left, 0)
        connect(front, right, 1)
        cable = connect(left, right, 2)

        def start(machine: Machine, name: str, *arguments: str) -> Deployment:
            place = directory / name
            place.mkdir()
            key = {"TWINFER_CLUSTER_KEY": "5e" * 32}
            with machine.inside():
                deployment = Deployment(place, arguments, key)
            stack.callback(deployment.destroy)
            return deployment

        def start_worker(machine: Machine, name: str, address: str) -> Deployment:
            config = str(directory / f"{name}.toml")
            options = ("--pool", name, "--listen", "0.0.0.0:7001", "--advertise", address, "--kv-port", "7002")
            return start(machine, name, "worker", "--config", config, *options)

        workers = start_worker(left, "prefill", cable.addresses[0]), start_worker(right, "decode", cable.addresses[1])
        gateway = start(front, "gateway", "serve", "--config", str(directory / "gateway.toml"), "--port", "0")
        gateway.wait_ready()
        yield Site(front, cable, gateway, *workers, directory)
        for deployment in (gateway, *workers):
            assert deployment.stop() == 0, deployment.output.text
            assert "Traceback" not in deployment.output.text, deployment.output.text


def check_tokens(answer: dict[str, Any], model: ServedModel, prompt: str) -> None:
    """Fail unless the answer is the one that follows from the prompt's tokens."""
    ids = model.prompt(Conversation((say("user", prompt),)))
    emulation = EmulationConfig(vocab_size=model.vocab_size)
    expected = expected_output(ids, NUM_TOKENS, emulation, tenant="default")
    ends = [index for index, token in enumerate(expected) if token in model.eos_token_ids]
    expected = expected[: ends[0]] if ends else expected
    entries = answer["choices"][0]["logprobs"]["content"]
    assert [list(model.tokenizer.token_bytes(token)) for token in expected] == [entry["bytes"] for entry in entries]


def words(begin: str, count: int) -> str:
    """A prompt of many tokens that no other test has begun in the same way."""
    return f"{begin} " + " ".join(str(number) for number in range(count))


def test_a_prompt_is_passed_between_machines(site: Site, demo_model: ServedModel):
    """KV goes over TLS where the machines share no memory, and the text is right."""
    prompt = words("between machines", 100)
    before = site.series("handoffs_by_transport_total", "decode-0", transport="tcp+tls")
    answer = site.ask(prompt)
    check_tokens(answer, demo_model, prompt)
    assert answer["twinfer"]["route"] == "disaggregated"
    assert answer["twinfer"]["prefill_worker"] == "prefill-0"
    assert answer["twinfer"]["transfer_bytes"] > 0
    assert site.series("handoffs_by_transport_total", "decode-0", transport="tcp+tls") == before + 1
    site.decode.output.wait_for(r"KV from prefill-0 cannot come over shm: .*refused")
    site.decode.output.wait_for(r"KV from prefill-0 comes over tcp\+tls because nothing better could be connected")
    site.wait_idle()


def test_workers_that_lose_each_other_and_meet_again(site: Site, demo_model: ServedModel):
    """The cable between the workers is pulled out in mid-prefill: the answer comes nevertheless, and is right; both
    free what they held; when it is back, KV passes again."""
    prompt = words("out of the wall", 700)
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(site.ask, prompt)
        eventually(
            lambda: site.series("handoffs_open", "decode-0", state="sink_receiving") or None, "KV under way", 30.0
        )
        site.cable.pull_out()
        answer = asking.result(60)
    check_tokens(answer, demo_model, prompt)
    site.wait_idle()
    assert site.series("handoffs_aborted_total", "decode-0") + site.series("handoffs_expired_total", "decode-0") > 0
    site.cable.plug_in()
    handoffs = site.series("handoffs_by_transport_total", "decode-0", transport="tcp+tls")

    tries = itertools.count()

    def passes_again() -> bool | None:
        again = words(f"back in the wall {next(tries)}", 100)  # what was computed meanwhile is cached, and not passed
        answer = site.ask(again)
        check_tokens(answer, demo_model, again)
        grown = site.series("handoffs_by_transport_total", "decode-0", transport="tcp+tls") > handoffs
        return grown or None

    eventually(passes_again, "a handoff over the mended cable", 60.0)
    site.wait_idle()


def test_certificates_are_renewed_at_work(site: Site, cluster: Cluster, demo_model: ServedModel):
    """Both workers take new ones without a restart, and KV passes on between them."""
    for name in ("prefill", "decode"):
        cluster.named(site.directory / f"{name}-tls", f"{name}-0", hosts=HOSTS)
    for worker in (site.prefill, site.decode):
        worker.output.wait_for(r"the certificate was renewed from .+: new connections show it")
    handoffs = site.series("handoffs_by_transport_total", "decode-0", transport="tcp+tls")
    prompt = words("renewed", 100)
    check_tokens(site.ask(prompt), demo_model, prompt)
    assert site.series("handoffs_by_transport_total", "decode-0", transport="tcp+tls") == handoffs + 1
    assert site.series("peers_refused_total", "decode-0") == 0
    site.wait_idle()
