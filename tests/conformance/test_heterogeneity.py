"""KV between workers that differ: right, or refused before anything is computed; never wrong.

Emulated engines give a wrong token for any wrong, missing or misplaced element, so for them right means exact. Native
engines are exact where both sides store the same numbers; where precision differs, ``TOLERANCES`` says how far the
answers may be apart.
"""

import inspect
import json
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path

import msgspec
import pytest
from tokenizers import Tokenizer

from tests.conformance.pair import (
    EMULATION,
    Pair,
    emulated,
    emulated_pool,
    inproc_ways,
    make_pair,
    native_maker,
    real_ways,
)
from tests.conftest import TinyCheckpoints
from tests.fakes import POOL, a_request, expected_output
from twinfer.core.capabilities import Capabilities
from twinfer.core.config import PoolConfig, WeightFormat
from twinfer.core.ids import ModelId
from twinfer.core.layout import KVDtype
from twinfer.core.messages import Granted, Prefill, Refused
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Token
from twinfer.kv.elements import BlockArrays
from twinfer.transport.inproc import Fault, InprocHub

SIZES = (8, 16, 24, 64)
DTYPES: tuple[KVDtype, ...] = ("fp32", "bf16", "fp16", "fp8")
FORMS = tuple(product(SIZES, DTYPES))
STEM = [(37 * index) % 997 for index in range(400)]
NUM_TOKENS = 4

TOLERANCES = {"fp16": 0.03, "bf16": 0.25, "int8": 0.4, "fp8": 1.0, "int4": 2.0}
"""By the coarsest format on either side: the largest distance between the natural log probabilities of the best token,
and of the second if it has at least ``LIKELY``; and the largest margin by which the reference may have preferred its
own token where another was drawn. The demo model stays within half of it: 0.01, 0.11, 0.19, 0.50 and 0.99."""
LIKELY = math.log(0.1)
MIN_AGREEMENT = {"fp16": 0.9, "bf16": 0.8, "int8": 0.8, "fp8": 0.5, "int4": 0.3}
"""Share of greedy tokens before the first difference, over all prompts."""


def ids_of(tokens: Sequence[Token]) -> list[int]:
    """Token ids."""
    return [token.token_id for token in tokens]


def expected(prompt: list[int]) -> list[int]:
    """What emulated engines must answer."""
    return expected_output(prompt, NUM_TOKENS, EMULATION)


def emulated_pair(source: tuple[int, KVDtype], sink: tuple[int, KVDtype], accept: tuple[str, ...] = ("*",)) -> Pair:
    """Two emulated workers in these forms."""
    return make_pair(emulated, (emulated_pool(*source), emulated_pool(*sink, accept)), inproc_ways(InprocHub()))


@pytest.mark.parametrize("source", FORMS, ids=lambda form: f"{form[0]}-{form[1]}")
def test_every_form_into_every_other(source: tuple[int, KVDtype]) -> None:
    """Prompts that end before, at and after the blocks of either side, each with the last one's prefix on the sink."""
    for sink in FORMS:
        a, b = source[0], sink[0]
        with closing(emulated_pair(source, sink)) as pair:
            before = 0
            for length in sorted({1, a - 1, a, b + 1, a + b + 1}):
                tokens, cached = pair.hand_over(a_request(STEM[:length], NUM_TOKENS, f"r{length}"))
                assert expected(STEM[:length]) == ids_of(tokens), (sink, length)
                assert before // b * b == cached, (sink, length)
                before = length
            pair.assert_idle()


@pytest.mark.parametrize("transport", ["shm", "tcp"])
@pytest.mark.parametrize(
    ("source", "sink"), [((24, "fp32"), (16, "fp8")), ((64, "fp8"), (24, "bf16")), ((8, "bf16"), (8, "fp16"))]
)
def test_over_real_transports(transport: str, source: tuple[int, KVDtype], sink: tuple[int, KVDtype]) -> None:
    """The same through shared memory and sockets, prompts of many chunks included."""
    with closing(make_pair(emulated, (emulated_pool(*source), emulated_pool(*sink)), real_ways(transport))) as pair:
        for length in (5, 100, 333):
            tokens, _ = pair.hand_over(a_request(STEM[:length], NUM_TOKENS, f"r{length}"))
            assert expected(STEM[:length]) == ids_of(tokens)
        pair.assert_idle()


def test_a_corrupt_chunk_is_not_converted() -> None:
    """Its digest is held against the bytes that arrived; what comes instead is right."""
    hub = InprocHub()
    pair = make_pair(emulated, (emulated_pool(16, "bf16"), emulated_pool(24, "fp8")), inproc_ways(hub))
    with closing(pair):
        hub.faults.extend([Fault.CORRUPT, Fault.SHORT])
        tokens, _ = pair.hand_over(a_request(STEM[:200], NUM_TOKENS))
        assert expected(STEM[:200]) == ids_of(tokens)
        counters = pair.sink.reception.load(healthy=True).counters
        assert (counters.integrity_failures, counters.resends, counters.handoffs_in) == (1, 1, 1)
        pair.assert_idle()


@pytest.mark.parametrize("dtype", DTYPES)
def test_tail_of_a_converted_block_is_zero(dtype: KVDtype) -> None:
    """R10: a block that a prompt and its first step fill in part holds nothing of whoever had it before."""
    with closing(emulated_pair((24, "fp32"), (16, dtype))) as pair:
        pair.hand_over(a_request(STEM[:37], 2))
        blocks = BlockArrays(pair.sink.memory.view, pair.sink.engine.capabilities.layout)
        partial = [block for block in range(len(blocks.elements)) if not blocks.elements[block, ..., 6:, :].any()]
        assert len(partial) == 1
        assert blocks.elements[partial[0], ..., :6, :].any()
        assert blocks.scales is None or not blocks.scales[partial[0], ..., 6:].any()


def test_wire_bytes_are_the_sources() -> None:
    """What is counted is what travelled: the source's blocks, from the one in which the sink's prefix ends."""
    with closing(emulated_pair((64, "fp8"), (8, "fp32"))) as pair:
        wire = pair.source.engine.capabilities.layout.block_bytes
        for length, blocks in ((129, 3), (135, 1), (190, 1)):
            before = pair.sink.reception.load(healthy=True).counters.kv_bytes_in
            pair.hand_over(a_request(STEM[:length], NUM_TOKENS, f"r{length}"))
            assert blocks * wire == pair.sink.reception.load(healthy=True).counters.kv_bytes_in - before


def test_a_stranger_never_finds_converted_kv_of_another_tenant() -> None:
    """Tenants stay apart, and staging memory that one used holds nothing for the next."""
    with closing(emulated_pair((24, "bf16"), (16, "fp8"))) as pair:
        for tenant, length in (("a", 200), ("b", 100), ("a", 201)):
            request = a_request(STEM[:length], NUM_TOKENS, f"{tenant}{length}", tenant=tenant)
            tokens, cached = pair.hand_over(request)
            assert expected_output(STEM[:length], NUM_TOKENS, EMULATION, tenant) == ids_of(tokens)
            assert cached == (192 if length == 201 else 0)


def cached_by(pair: Pair, request: GenerationRequest, provenance: str = "") -> int:
    """Prompt tokens that a request generated on the sink finds there."""
    before = pair.sink.engine.load().counters.cached_tokens
    assert expected(list(request.prompt)) == ids_of(pair.generate(request, provenance))
    return pair.sink.engine.load().counters.cached_tokens - before


@pytest.mark.parametrize(("accept", "found"), [(("*",), 96), (("emulated/bf16",), 96)])
def test_foreign_numbers_are_not_taken_for_own(accept: tuple[str, ...], found: int) -> None:
    """A plain request computes its prompt itself; one that is told of the provenance finds what was handed over."""
    with closing(emulated_pair((16, "bf16"), (16, "fp32"), accept)) as pair:
        pair.hand_over(a_request(STEM[:100], NUM_TOKENS, "first"))
        assert cached_by(pair, a_request(STEM[:99], NUM_TOKENS, "told"), "emulated/bf16") == found
        assert cached_by(pair, a_request(STEM[:98], NUM_TOKENS, "untold"), "emulated/fp8") == 0
        assert cached_by(pair, a_request(STEM[:97], NUM_TOKENS, "plain")) == 96


def test_unaccepted_provenance_in_a_request_is_ignored() -> None:
    """Whoever asks: what the pool does not accept is not looked for."""
    with closing(emulated_pair((16, "fp32"), (24, "fp32"), ())) as pair:
        pair.hand_over(a_request(STEM[:100], NUM_TOKENS, "first"))
        assert cached_by(pair, a_request(STEM[:99], NUM_TOKENS, "second"), "emulated/bf16") == 96


def changed(source: Capabilities, **changes: object) -> Capabilities:
    """The same worker, another model."""
    own = {name: value for name, value in changes.items() if name in source.__struct_fields__}
    shape = {name: value for name, value in changes.items() if name in source.layout.__struct_fields__}
    identity = {name: value for name, value in changes.items() if name in source.fingerprint.__struct_fields__}
    return msgspec.structs.replace(
        source,
        layout=msgspec.structs.replace(source.layout, **shape),
        fingerprint=msgspec.structs.replace(source.fingerprint, **identity),
        **own,
    )


REFUSED = {
    "another model": {"model": ModelId("other")},
    "weights differs": {"weights": "other"},
    "head_dim differs": {"head_dim": 16},
    "packing differs": {"packing": "vec"},
    "numeric provenance": {"provenance": "emulated/bf16", "dtype": "bf16"},
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_before_compute(words: str) -> None:
    """The reservation is refused in words and counted, nothing is promised, and the sink can answer by itself."""
    with closing(emulated_pair((16, "fp32"), (16, "fp32"), ("int8/fp32",))) as pair:
        request = a_request(STEM[:50], NUM_TOKENS)
        answer = pair.reserve(request, changed(pair.source.identity.capabilities, **REFUSED[words]))
        assert isinstance(answer, Refused)
        assert answer.incompatible
        assert answer.reason.startswith("incompatible: ")
        assert words in answer.reason
        report = pair.sink.reception.load(healthy=True)
        assert (report.blocks.promised, report.blocks.live, report.counters.pairs_refused) == (0, 0, 1)
        assert pair.source.engine.load().counters.requests == 0
        assert expected(STEM[:50]) == ids_of(pair.generate(request))


def test_grant_for_another_form_is_refused_by_the_source() -> None:
    """A gateway that describes the source wrongly is found out before any compute."""
    with closing(emulated_pair((16, "fp32"), (16, "fp32"))) as pair:
        request = a_request(STEM[:50], NUM_TOKENS)
        granted = pair.reserve(request, changed(pair.source.identity.capabilities, block_tokens=8))
        assert isinstance(granted, Granted)
        pair.source.reception.take(Prefill(request, granted.grant), pair.gateway, pair)
        refused = pair.gateway.said.pop()
        assert isinstance(refused, Refused)
        assert (refused.incompatible, pair.source.engine.load().counters.requests) == (True, 0)
        pair.cancel(request.request_id)
        pair.assert_idle()


def test_a_source_that_is_not_as_described_is_cut_off() -> None:
    """Even with a grant: what it offers must be in the form for which room was reserved."""
    with closing(emulated_pair((16, "fp32"), (16, "fp32"))) as pair:
        request = a_request(STEM[:50], NUM_TOKENS)
        granted = pair.reserve(request)
        assert isinstance(granted, Granted)
        disguised = changed(pair.source.identity.capabilities, block_tokens=8)
        peer = pair.meet()
        identity = msgspec.structs.replace(peer.identity, capabilities=disguised)
        object.__setattr__(peer, "identity", identity)
        pair.source.reception.take(Prefill(request, granted.grant), pair.gateway, pair)
        with pytest.raises(AssertionError, match="not what room was reserved for"):
            pair.settle()
        pair.gateway.said.clear()
        pair.settle()
        assert pair.sink.engine.load().counters.requests == 0
        pair.cancel(request.request_id)
        pair.assert_idle()


def native_pool(
    weights: WeightFormat, kv_dtype: KVDtype, block_tokens: int = 16, accept: tuple[str, ...] = ("*",)
) -> PoolConfig:
    """A pool of native workers."""
    return msgspec.structs.replace(
        POOL,
        engine="native",
        weights=weights,
        kv_dtype=kv_dtype,
        block_tokens=block_tokens,
        accept=accept,
        max_step_tokens=64,
    )


@pytest.mark.torch
@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-mistral", "tiny-qwen3"])
@pytest.mark.parametrize("kv_dtype", DTYPES)
def test_equal_numbers_give_equal_tokens(shape: str, kv_dtype: KVDtype, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Native engines whose pools differ in block size only answer as one of them alone does."""
    make = native_maker(str(tiny(shape)), cache_dir)
    for source, sink in ((24, 16), (8, 64)):
        pools = native_pool("fp32", kv_dtype, source, ()), native_pool("fp32", kv_dtype, sink, ())
        pair, alone = (make_pair(make, each, inproc_ways(InprocHub())) for each in (pools, (pools[1], pools[1])))
        with closing(pair), closing(alone):
            for length in (7, 24, 65, 130):
                request = a_request([13 * index % 4096 for index in range(length)], 6, f"r{length}")
                assert ids_of(alone.generate(request)) == ids_of(pair.hand_over(request)[0])


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Python source of several lengths, as the demo model's tokens."""
    from twinfer.model.checkpoint import DEMO, locate

    tokenizer = Tokenizer.from_file(str(locate(DEMO) / "tokenizer.json"))
    texts = [inspect.getsource(module) for module in (textwrap, json)]
    return [[0, *tokenizer.encode(text).ids[:length]] for text in texts for length in (50, 120, 333)]


def distances(reference: Sequence[Token], tokens: Sequence[Token]) -> Iterator[tuple[float, float]]:
    """Up to the first difference, for each token: how far its likely candidates are from the reference's log
    probabilities, and, where another token was drawn, the margin by which the reference preferred its own."""
    for ours, theirs in zip(reference, tokens, strict=False):
        seen = {entry.token_id: entry.logprob for entry in theirs.top}
        best, second = ours.top[:2]
        likely = [best, second] if second.logprob >= LIKELY else [best]
        far = max(abs(entry.logprob - seen[entry.token_id]) for entry in likely)
        yield far, 0.0 if ours.token_id == theirs.token_id else best.logprob - second.logprob
        if ours.token_id != theirs.token_id:
            return


@pytest.mark.torch
@pytest.mark.parametrize(
    ("source", "sink", "coarsest"),
    [
        (("bf16", "bf16"), ("fp32", "fp32"), "bf16"),
        (("fp32", "bf16"), ("fp32", "fp32"), "bf16"),
        (("fp16", "fp16"), ("fp32", "fp32"), "fp16"),
        (("fp32", "fp32"), ("bf16", "bf16"), "bf16"),
        (("fp32", "fp8"), ("fp32", "fp32"), "fp8"),
        (("fp32", "fp32"), ("fp32", "fp8"), "fp8"),
        (("bf16", "bf16"), ("fp32", "fp8"), "fp8"),
        (("bf16", "bf16"), ("int8", "bf16"), "int8"),
        (("int8", "bf16"), ("bf16", "bf16"), "int8"),
        (("int8", "bf16"), ("int8", "fp32"), "int8"),
        (("bf16", "bf16"), ("int4", "bf16"), "int4"),
    ],
    ids=str,
)
def test_unequal_precision_stays_within_its_tolerance(
    source: tuple[WeightFormat, KVDtype],
    sink: tuple[WeightFormat, KVDtype],
    coarsest: str,
    prompts: list[list[int]],
    cache_dir: Path,
) -> None:
    """The demo model, prefilled in one precision and decoded in another, beside the same model in fp32 throughout."""
    make: Callable[[PoolConfig], tuple] = native_maker("demo", cache_dir)
    exact = native_pool("fp32", "fp32")
    pair = make_pair(make, (native_pool(*source, 24), native_pool(*sink)), inproc_ways(InprocHub()))
    alone = make_pair(make, (exact, exact), inproc_ways(InprocHub()))
    num_equal = num_all = 0
    with closing(pair), closing(alone):
        for index, prompt in enumerate(prompts):
            request = msgspec.structs.replace(a_request(prompt, 12, f"r{index}"), top_logprobs=20)
            reference, tokens = alone.generate(request), pair.hand_over(request)[0]
            found = list(distances(reference, tokens))
            assert max(far for far, _ in found) <= TOLERANCES[coarsest]
            assert max(margin for _, margin in found) <= TOLERANCES[coarsest]
            num_equal += sum(margin == 0.0 for _, margin in found)
            num_all += len(reference)
        assert num_equal >= num_all * MIN_AGREEMENT[coarsest]
