"""Deployments that several tests share; each is ended, and searched for what it left behind, after the last of them."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.deployment import Deployment, serving
from twinfer.core.config import ModelConfig
from twinfer.gateway.loading import load_model
from twinfer.gateway.models import ServedModel
from twinfer.model.checkpoint import locate

DEMO = "twinfer.demo-v1:0"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in here starts real processes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session", autouse=True)
def _no_ambient_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prepared weights go to a directory of the session, and clients find nobody's credentials or endpoints."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_BEARER_TOKEN_BEDROCK", "OPENAI_BASE_URL"):
            patch.delenv(name, raising=False)
        for name in [name for name in os.environ if name.startswith("TWINFER_") or name.lower().endswith("_proxy")]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("TWINFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def demo_model() -> ServedModel:
    """The bundled model's tokenizer and template, as the gateway has them."""
    return load_model(ModelConfig(id=DEMO), locate("demo"))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The default topology: the demo model in fp32 on one prefill and one decode worker, KV over shared memory.

    Steps are small, so that a prompt of some hundred tokens is several chunks.
    """
    sets = [f"pool.{pool}.{key}" for pool in ("prefill", "decode") for key in ("kv_mib=96", "max_step_tokens=64")]
    with serving(tmp_path_factory.mktemp("demo"), "", *sets) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def demo_tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The same with KV over TCP."""
    sets = [f"pool.{pool}.{key}" for pool in ("prefill", "decode") for key in ("kv_mib=96", "max_step_tokens=64")]
    with serving(tmp_path_factory.mktemp("tcp"), "", *sets, "link.transport=tcp") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Short directories for a module's deployments: a Unix socket's path has room for about a hundred characters."""
    return tmp_path_factory.mktemp("d")
