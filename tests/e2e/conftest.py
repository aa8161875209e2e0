"""Deployments that several tests share; each is ended, and searched for what it left behind, after the last of them."""

import inspect
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.deployment import RULE, Deployment, serving
from twinfer.core.config import ModelConfig
from twinfer.gateway.loading import load_model
from twinfer.gateway.models import ServedModel
from twinfer.model.checkpoint import locate

DEMO = "twinfer.demo-v1:0"
SOURCE = inspect.getsource(textwrap)
"""Text of the kind that the demo model knows, to cut prompts from."""
CORES = sorted(os.sched_getaffinity(0))
TIMEOUT_S = 300
"""For a test that says nothing else."""
CHUNK_TOKENS = 64
"""Prompt positions in one step of the demo deployments: some hundred tokens are several chunks."""

# One core for each worker: the same number of threads adds up the same floats in the same order.
SPLIT = (
    f"pool.prefill.cores=[{CORES[0]}]",
    f"pool.decode.cores=[{CORES[-1]}]",
    *(f"pool.{name}.max_step_tokens={CHUNK_TOKENS}" for name in ("prefill", "decode")),
    *(f"pool.{name}.kv_mib=96" for name in ("prefill", "decode")),
)
ONE_WORKER = f"""
[[pool]]
name = "whole"
role = "both"
weights = "fp32"
cores = [{CORES[0]}]
max_step_tokens = {CHUNK_TOKENS}
kv_mib = 96
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in here starts real processes, which takes its time on a slow machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session", autouse=True)
def _no_ambient_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prepared weights and keys go to directories of the session, and clients find nobody's credentials."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_BEARER_TOKEN_BEDROCK", "OPENAI_BASE_URL"):
            patch.delenv(name, raising=False)
        for name in [name for name in os.environ if name.startswith("TWINFER_") or name.lower().endswith("_proxy")]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.setenv("TWINFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def demo_model() -> ServedModel:
    """The bundled model's tokenizer and template, as the gateway has them."""
    return load_model(ModelConfig(id=DEMO), locate("demo"))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The default topology: the demo model in fp32 on one prefill and one decode worker, KV over shared memory."""
    with serving(tmp_path_factory.mktemp("demo"), "", *SPLIT) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def demo_tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The same with KV over TCP, and with routes that follow from nothing but the lengths of prompts."""
    with serving(tmp_path_factory.mktemp("tcp"), "", *SPLIT, "link.transport=tcp", RULE) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def demo_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The demo model on one worker for both phases, with the same arithmetic: what the others are compared with."""
    with serving(tmp_path_factory.mktemp("alone"), ONE_WORKER) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short directories for a module's deployments: a Unix socket's path has room for about a hundred characters."""
    return tmp_path_factory.mktemp("d")
