"""From a configuration and cores to processes: names, places, addresses, and what makes no sense."""

import pytest

from twinfer.cluster.plan import plan_local
from twinfer.core.config import Config
from twinfer.core.config_text import parse_config
from twinfer.core.errors import ConfigError


def cores_of(config: Config, cores: list[int]) -> dict[str, tuple[int, ...]]:
    """Which cores each worker gets."""
    plan = plan_local(config, cores, "/run", "/cache")
    return {str(spec.worker): spec.cores for spec in plan.workers}


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        ([0, 1], {"prefill-0": (0,), "decode-0": (1,)}),
        ([0, 1, 2, 3, 4], {"prefill-0": (0, 1), "decode-0": (2, 3, 4)}),
        ([7], {"prefill-0": (7,), "decode-0": (7,)}),
    ],
)
def test_default_splits_the_cores(cores: list[int], expected: dict[str, tuple[int, ...]]) -> None:
    """One prefill and one decode worker, each with half; on one core they share it."""
    assert expected == cores_of(Config(), cores)


def test_emulated_workers_share_all_cores() -> None:
    """They compute nothing: cores of their own would keep them from those that are idle."""
    config = parse_config(overrides=["pool.decode.engine=emulated", "pool.decode.workers=2"])
    assert cores_of(config, [0, 1]) == {"prefill-0": (0, 1), "decode-0": (0, 1), "decode-1": (0, 1)}
    config = parse_config(overrides=["pool.decode.engine=emulated", "pool.decode.cores=[1]"])
    assert cores_of(config, [0, 1]) == {"prefill-0": (0,), "decode-0": (1,)}


def test_pools_with_cores_of_their_own_leave_the_rest() -> None:
    """What one pool names, the others do not get."""
    config = parse_config(overrides=["pool.prefill.cores=[2, 3]", "pool.decode.workers=2"])
    assert cores_of(config, [0, 1, 2, 3]) == {"prefill-0": (2, 3), "decode-0": (0,), "decode-1": (1,)}


def test_workers_started_elsewhere_are_only_addressed() -> None:
    """They are not started, take no cores, and keep their order."""
    config = parse_config(overrides=['pool.prefill.addresses=["127.0.0.1:1", "127.0.0.1:2"]'])
    plan = plan_local(config, [0, 1], "/run", "/cache")
    assert [spec.worker for spec in plan.workers] == ["decode-0"]
    assert plan.workers[0].cores == (0, 1)
    expected = {"prefill-0": "127.0.0.1:1", "prefill-1": "127.0.0.1:2", "decode-0": "unix:/run/decode-0.sock"}
    assert expected == plan.addresses


POOL = "[[pool]]\nname='{}'\nrole='{}'\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (POOL.format("a", "both") * 2, "pool name 'a' is used twice"),
        ("[[model]]\nid='m'\n[[model]]\nid='m'\n", "model id 'm' is used twice"),
        (POOL.format("a", "both") + "model='x'\n", "serves 'x', which is no"),
        (POOL.format("a", "both") + "cores=[9]\n", r"asks for cores \[9\]"),
        (POOL.format("a", "both") + "workers=0\n", "workers = 0"),
        (POOL.format("a", "prefill"), "no pool with role decode or both"),
        ("model = []\n", "has no .*model"),
        (POOL.format("a", "both") + "addresses=['10.0.0.5:1']\n", "10.0.0.5:1 is not on this machine.*twinfer certs"),
        (POOL.format("a", "both") + "addresses=['nowhere']\n", "'nowhere' is no address"),
    ],
)
def test_what_makes_no_sense_is_said(text: str, sentence: str) -> None:
    """Before anything is started, in one sentence."""
    with pytest.raises(ConfigError, match=sentence):
        plan_local(parse_config(text), [0, 1], "/run", "/cache")


TLS = "[tls]\nca='a'\ncert='b'\nkey='c'\n"


def test_workers_on_other_machines_need_tls() -> None:
    """With certificates, addresses may be anywhere."""
    away = POOL.format("prefill", "prefill") + "addresses=['10.0.0.5:1']\n"
    away += POOL.format("decode", "decode") + "addresses=['10.0.0.6:1', 'decode.example.net:2']\n"
    plan = plan_local(parse_config(TLS + away), [0], "/run", "/cache")
    assert plan.workers == ()
    assert list(plan.addresses.values()) == ["10.0.0.5:1", "10.0.0.6:1", "decode.example.net:2"]


@pytest.mark.parametrize("address", ["10.0.0.5:1", "127.0.0.1:1"])
@pytest.mark.parametrize(("here", "away"), [("prefill", "decode"), ("decode", "prefill"), ("both", "decode")])
def test_workers_that_could_not_reach_each_other(here: str, away: str, address: str) -> None:
    """KV cannot pass between a worker on a Unix socket here and one that insists on TLS: said before the start."""
    text = POOL.format("near", here) + POOL.format("far", away) + f"addresses=['{address}']\n"
    with pytest.raises(ConfigError, match="'near' would be started where pool 'far', elsewhere, cannot reach it"):
        plan_local(parse_config(TLS + text), [0], "/run", "/cache")


def test_workers_that_need_not_reach_each_other() -> None:
    """Two pools that both only decode pass no KV, so they may be anywhere."""
    text = POOL.format("near", "decode") + POOL.format("far", "decode") + "addresses=['10.0.0.5:1']\n"
    assert [spec.worker for spec in plan_local(parse_config(TLS + text), [0], "/run", "/cache").workers] == ["near-0"]
