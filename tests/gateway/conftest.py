import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.gateway import templates
from tests.gateway.house import House, checkpoint, open_house
from tests.gateway.scripted_cluster import CONFIG, Cluster
from twinfer.core.config import ModelConfig
from twinfer.gateway.loading import Limits, load_model
from twinfer.gateway.models import ServedModel
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.gateway.text.formats.hermes import Hermes
from twinfer.gateway.text.manner import Manner


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without weights: byte-level tokenizer, chat template, context of 512."""
    return checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def model(directory: Path) -> ServedModel:
    """The model as the gateway serves it; engines of it may draw ids that the tokenizer does not have."""
    config = ModelConfig(id="twinfer.tiny-v1:0", aliases=("meta.llama3-1-8b-instruct-v1:0",), provider="Twinfer")
    return load_model(config, directory, Limits(vocab_size=1000))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_house(model: ServedModel) -> AsyncIterator[House]:
    """A gateway with a scripted cluster, on a real socket, for one test module."""
    async with open_house(model) as house:
        yield house


@pytest.fixture
def house(shared_house: House) -> House:
    """The module's gateway, with nothing left of the test before."""
    shared_house.reset()
    return shared_house


@pytest.fixture(autouse=True)
def _no_ambient_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """SDKs find credentials of no one, and no endpoint of anyone's."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_BEARER_TOKEN_BEDROCK", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def gate() -> asyncio.Event:
    """Holds a script back until it is set."""
    return asyncio.Event()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def wild_house(model: ServedModel) -> AsyncIterator[House]:
    """A gateway whose model answers to every name."""
    async with open_house(replace(model, aliases=("*",))) as house:
        yield house


@pytest.fixture
def wild(wild_house: House) -> House:
    """That gateway, with nothing left of the test before."""
    wild_house.reset()
    return wild_house


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def roomy_house(model: ServedModel) -> AsyncIterator[House]:
    """A gateway whose model thinks and calls tools as Qwen does, and has much room."""
    template, manner = ChatTemplate(templates.HERMES, {}), Manner(Hermes(), "think")
    async with open_house(replace(model, template=template, manner=manner, max_context_tokens=10_000)) as house:
        yield house


@pytest.fixture
def roomy(roomy_house: House) -> House:
    """That gateway, with nothing left of the test before."""
    roomy_house.reset()
    return roomy_house


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """All three workers are there."""
    cluster = Cluster(CONFIG)
    await cluster.until(lambda: not cluster.fleet.missing())
    yield cluster
    await cluster.fleet.close()
