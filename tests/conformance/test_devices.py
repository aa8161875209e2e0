"""Handoffs between native engines on different devices."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch")

from tests.conformance.pair import inproc_ways, make_pair, native_maker
from tests.conftest import TinyCheckpoints
from tests.engine.places import PLACES, Place
from tests.fakes import POOL, a_request
from twinfer.core.config import PoolConfig
from twinfer.core.tokens import Token
from twinfer.transport.inproc import InprocHub

pytestmark = pytest.mark.torch


def ids_of(tokens: Sequence[Token]) -> list[int]:
    """What was drawn."""
    return [token.token_id for token in tokens]


def a_pool(device: str, block_tokens: int) -> PoolConfig:
    """A pool of native workers."""
    return msgspec.structs.replace(
        POOL, engine="native", weights="fp32", device=device, block_tokens=block_tokens, max_step_tokens=64
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("blocks", [(16, 16), (24, 16)], ids=str)
@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-mistral"])
def test_kv_goes_from_device_to_device(
    shape: str, blocks: tuple[int, int], place: Place, tiny: TinyCheckpoints, cache_dir: Path
) -> None:
    """From a GPU to a CPU, back, and between two GPUs' pools: the answers are those of a CPU alone."""
    device, make_runner = place
    make = native_maker(str(tiny(shape)), cache_dir, make_runner=make_runner)
    alone = make_pair(make, (a_pool("cpu", 16), a_pool("cpu", 16)), inproc_ways(InprocHub()))
    with closing(alone):
        for devices in ((device, "cpu"), ("cpu", device), (device, device)):
            source, sink = (a_pool(*each) for each in zip(devices, blocks, strict=True))
            with closing(make_pair(make, (source, sink), inproc_ways(InprocHub()))) as pair:
                for length in (7, 24, 65, 130):
                    name = f"{length} from {devices[0]} to {devices[1]}"
                    request = a_request([13 * index % 4096 for index in range(length)], 6, name)
                    assert ids_of(alone.generate(request)) == ids_of(pair.hand_over(request)[0])
