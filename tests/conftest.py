"""Fixtures that several packages' tests share: tiny checkpoints, certificates, and torch kept to one thread.

By default a property sees the same examples as long as its test is the same, and may take its time for each: no change
is refused for what it has nothing to do with, on however slow and busy a machine. ``--hypothesis-profile=random`` draws
new ones.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings

from tests.certificates import Cluster

settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", settings.get_profile("random"), derandomize=True)
settings.load_profile("steady")


class TinyCheckpoints(Protocol):
    """Gives the directory of a tiny checkpoint by the name of its shape, with changes to its configuration."""

    def __call__(self, shape: str, **changes: object) -> Path: ...


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared weights and digests of the session's checkpoints."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Certificates of one cluster."""
    return Cluster(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoints:
    """Tiny checkpoints, each made once and not to be changed."""
    from tools.make_checkpoint import SHAPES, write_checkpoint

    root = tmp_path_factory.mktemp("checkpoints")
    made: dict[str, Path] = {}

    def directory(shape: str, **changes: object) -> Path:
        name = f"{shape} {sorted(changes.items())}"
        if name not in made:
            made[name] = root / str(len(made))
            write_checkpoint(made[name], SHAPES[shape] | changes, seed=7)
        return made[name]

    return directory


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny shapes gain nothing from a second thread, and waiting for it on a busy machine takes most of the time."""
    if find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
