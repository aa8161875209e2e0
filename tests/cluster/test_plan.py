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
    ],
)
def test_what_makes_no_sense_is_said(text: str, sentence: str) -> None:
    """Before anything is started, in one sentence."""
    with pytest.raises(ConfigError, match=sentence):
        plan_local(parse_config(text), [0, 1], "/run", "/cache")
