"""The engine loop under arbitrary use, with an engine whose every token depends on the KV really present."""

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.fakes import EMULATION, POOL, VOCAB, SmallEngine, a_request, expected_output
from twinfer.core.clock import ManualClock
from twinfer.core.config import PoolConfig
from twinfer.core.errors import CapacityError, InvalidRequest
from twinfer.core.ids import RequestId
from twinfer.core.messages import FailureKind
from twinfer.core.service import Tier
from twinfer.core.tokens import FinishReason

PROMPTS = st.lists(st.integers(0, 20), min_size=1, max_size=24)


def small(max_step_tokens: int, num_blocks: int, max_running: int = 8, vocab_size: int = VOCAB) -> SmallEngine:
    """An engine with few blocks, so that chunking and preemption happen all the time; with few tokens, it guesses."""
    emulation = msgspec.structs.replace(EMULATION, vocab_size=vocab_size)
    speculation = "off" if vocab_size == VOCAB else "lookup"
    pool = msgspec.structs.replace(POOL, max_step_tokens=max_step_tokens, max_running=max_running)
    return SmallEngine(num_blocks, msgspec.structs.replace(pool, emulation=emulation, speculation=speculation))


@settings(max_examples=120, deadline=None)
@given(
    jobs=st.lists(st.tuples(PROMPTS, st.integers(1, 12)), min_size=1, max_size=8),
    max_step_tokens=st.integers(8, 40),
    num_blocks=st.integers(10, 30),
    vocab_size=st.sampled_from([VOCAB, 1, 2]),
)
def test_batching_never_changes_an_answer(
    jobs: list[tuple[list[int], int]], max_step_tokens: int, num_blocks: int, vocab_size: int
) -> None:
    """Whatever the mix, chunk size, prefix hits, preemptions and guesses: each answer is that of the prompt alone."""
    jobs = [([token % vocab_size for token in prompt], num_tokens) for prompt, num_tokens in jobs]
    engine = small(max_step_tokens, num_blocks, vocab_size=vocab_size)
    for index, (prompt, num_tokens) in enumerate(jobs):
        engine.engine.submit(a_request(prompt, num_tokens, str(index)))
    output = engine.run()
    emulation = msgspec.structs.replace(EMULATION, vocab_size=vocab_size)
    assert {str(i): expected_output(p, n, emulation) for i, (p, n) in enumerate(jobs)} == output
    counts = engine.engine.load().blocks
    assert (0, num_blocks) == (counts.live, counts.free + counts.cached)


class LoopMachine(RuleBasedStateMachine):
    """Random submissions, exports, releases and cancels between steps: no block lost, every request ends once."""

    @initialize(max_step_tokens=st.integers(8, 32), num_blocks=st.integers(12, 24))
    def start(self, max_step_tokens: int, num_blocks: int) -> None:
        self.engine = small(max_step_tokens, num_blocks).engine
        self.wanted: dict[str, list[int]] = {}
        self.output: dict[str, list[int]] = {}
        self.ended: list[str] = []
        self.dropped: set[str] = set()
        self.exports: list[str] = []

    @rule(prompt=PROMPTS, num_tokens=st.integers(1, 10), tier=st.sampled_from(Tier))
    def submit(self, prompt: list[int], num_tokens: int, tier: Tier) -> None:
        request = msgspec.structs.replace(a_request(prompt, num_tokens, f"answer {len(self.wanted)}"), tier=tier)
        self.wanted[request.request_id] = expected_output(prompt, num_tokens)
        self.engine.submit(request)

    @rule(prompt=PROMPTS)
    def export(self, prompt: list[int]) -> None:
        request = a_request(prompt, 9, f"export {len(self.wanted)}")
        with contextlib.suppress(CapacityError):  # parked prompts fill the pool
            self.engine.exports.submit(request)
            self.wanted[request.request_id] = expected_output(prompt, 1)

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        if self.wanted:
            victim = data.draw(st.sampled_from(sorted(self.wanted)))
            (self.engine.exports.release if victim in self.exports else self.engine.cancel)(RequestId(victim))
            self.dropped.add(victim)

    @rule()
    def step(self) -> None:
        self.advance()

    def advance(self) -> bool:
        outcome = self.engine.step()
        if outcome is None:
            return False
        self.ended += [request_id for request_id, _ in outcome.finished]
        self.exports += [part.request_id for part in outcome.exported if part.complete]
        for token in outcome.tokens:
            self.output.setdefault(token.request_id, []).append(token.token_id)
        return True

    @invariant()
    def nothing_is_lost_nor_wrong(self) -> None:
        counts = self.engine.load().blocks
        assert counts.total == counts.free + counts.cached + counts.live
        assert len(self.ended) == len(set(self.ended))
        for request_id, answer in self.output.items():
            assert self.wanted[request_id][: len(answer)] == answer

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        for _ in range(2000):
            if not self.advance():
                for request_id in self.exports:
                    self.engine.exports.release(RequestId(request_id))
                if self.engine.load().waiting == 0:
                    break
        assert set(self.wanted) - self.dropped <= set(self.ended)
        assert (self.engine.load().blocks.live, self.engine.load().running) == (0, 0)


TestLoop = LoopMachine.TestCase
TestLoop.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_prefix_hit_skips_what_is_there() -> None:
    """The second of two equal prompts computes only what is not in full cached blocks, plus its last position."""
    engine = small(64, 64)
    prompt = list(range(16))
    engine.engine.submit(a_request(prompt, 1, "a"))
    engine.run()
    before = engine.engine.load().counters.prefill_tokens
    engine.engine.submit(a_request(prompt, 1, "b"))
    assert {"b": expected_output(prompt, 1)} == engine.run()
    counters = engine.engine.load().counters
    assert (counters.prefill_tokens - before, counters.cached_tokens) == (4, 12)


def test_tenants_never_share_a_prefix() -> None:
    """Another tenant's equal prompt finds nothing."""
    engine = small(64, 64)
    prompt = list(range(16))
    engine.engine.submit(a_request(prompt, 1, "a", tenant="one"))
    engine.run()
    engine.engine.submit(a_request(prompt, 1, "b", tenant="two"))
    engine.run()
    assert engine.engine.load().counters.cached_tokens == 0


def test_salts_never_share_a_prefix_and_change_nothing_else() -> None:
    """The same prompt with another salt is computed anew, to the same answer; with the same salt it is found."""
    engine = small(64, 64)
    prompt = list(range(16))
    for number, salt in enumerate(("", "one", "two", "one")):
        engine.engine.submit(msgspec.structs.replace(a_request(prompt, 3, str(number)), cache_salt=salt))
        assert {str(number): expected_output(prompt, 3)} == engine.run()
    assert engine.engine.load().counters.cached_tokens == 12


def test_preemption_happens_and_is_invisible() -> None:
    """With blocks for less than all answers, somebody gives way, and nobody can tell."""
    engine = small(64, 12)
    for index in range(4):
        engine.engine.submit(a_request([index] * 8, 14, str(index)))
    assert {str(i): expected_output([i] * 8, 14) for i in range(4)} == engine.run()
    assert engine.engine.load().counters.preemptions > 0


def test_continues_an_earlier_attempt() -> None:
    """Tokens emitted elsewhere are taken as the answer's beginning, and indices go on from there."""
    whole = expected_output([1, 2, 3, 4, 5], 8)
    engine = small(64, 64)
    engine.engine.submit(a_request([1, 2, 3, 4, 5], 8), tuple(whole[:3]))
    tokens = []
    while (outcome := engine.engine.step()) is not None:
        tokens += outcome.tokens
    assert whole[3:] == [token.token_id for token in tokens]
    assert list(range(3, 8)) == [token.index for token in tokens]


def test_export_reports_every_block_once_and_holds_them() -> None:
    """Blocks of a prompt become final in order, the last with the first token, and stay until released."""
    engine = small(8, 64)
    prompt = list(range(22))
    engine.engine.exports.submit(a_request(prompt, 9))
    exported, tokens = [], []
    while (outcome := engine.engine.step()) is not None:
        exported += outcome.exported
        tokens += outcome.tokens
    assert [part.first_block for part in exported] == [0, 2, 4]
    assert [part.complete for part in exported] == [False, False, True]
    assert sum(len(part.blocks) for part in exported) == 6
    assert expected_output(prompt, 1) == [token.token_id for token in tokens]
    assert engine.engine.load().blocks.live == 6
    engine.engine.exports.release(RequestId("r"))
    assert (engine.engine.load().blocks.live, engine.engine.load().blocks.cached) == (0, 5)


def test_ingest_decodes_from_kv_computed_elsewhere() -> None:
    """Blocks copied from another engine's pool answer as if computed here, with the sink's prefix held back."""
    prompt = list(range(30))
    source, sink = small(64, 64), small(64, 64)
    sink.engine.submit(a_request(prompt[:12], 1, "warm"))
    sink.run()
    source.engine.exports.submit(a_request(prompt, 6))
    outcome = source.engine.step()
    assert outcome is not None
    assert sink.engine.ingests.promise(a_request(prompt, 6)) == range(12, 30)
    targets = sink.engine.ingests.bind(RequestId("r"))
    size = source.engine.capabilities.layout.block_bytes
    for taken, target in zip(outcome.exported[0].blocks[3:], targets, strict=True):
        sink.memory[target * size : (target + 1) * size] = source.memory[taken * size : (taken + 1) * size]
    sink.engine.ingests.commit(RequestId("r"), outcome.tokens[0])
    tokens = []
    while (step := sink.engine.step()) is not None:
        tokens += step.tokens
    assert expected_output(prompt, 6)[1:] == [token.token_id for token in tokens]
    assert list(range(1, 6)) == [token.index for token in tokens]


def test_withdrawn_ingest_gives_everything_back() -> None:
    """Before commit nothing is findable; with bytes still landing the blocks stay away from everybody."""
    sink = small(64, 16)
    request = a_request(list(range(20)), 4)
    assert sink.engine.ingests.promise(request) == range(20)
    assert sink.engine.load().blocks.promised == 5
    bound = sink.engine.ingests.bind(RequestId("r"))
    assert bound == sink.engine.ingests.withdraw(RequestId("r"), landing=True)
    assert (sink.engine.load().blocks.quarantined, sink.engine.load().blocks.free) == (5, 11)
    sink.engine.ingests.cleanse(bound)
    assert tuple(getattr(sink.engine.load().blocks, name) for name in ("quarantined", "free", "promised")) == (0, 16, 0)
    assert sink.engine.ingests.withdraw(RequestId("r"), landing=False) == ()


def test_full_pool_makes_no_promise() -> None:
    """A promise that would not hold is refused, and the prefix it had found is let go."""
    sink = small(64, 8)
    assert sink.engine.ingests.promise(a_request(list(range(24)), 4, "a")) == range(24)
    assert sink.engine.ingests.promise(a_request(list(range(24)), 4, "b")) is None
    assert sink.engine.load().blocks.promised == 6


def test_overdue_request_fails_with_its_deadline() -> None:
    """A request that waits past its own time is dropped and said so, once."""
    engine = small(8, 64)
    assert isinstance(engine.clock, ManualClock)
    engine.engine.submit(a_request([1] * 20, 4, deadline_s=5.0))
    engine.engine.step()
    engine.clock.advance(6)
    outcome = engine.engine.step()
    assert outcome is not None
    assert [failure.kind for failure in outcome.failed] == [FailureKind.DEADLINE]
    assert engine.engine.step() is None
    assert engine.engine.load().blocks.live == 0


def test_answer_ends_where_the_context_is_full() -> None:
    """The last token says that the context, not the client, ended the answer."""
    engine = small(64, 4)
    engine.engine.submit(a_request([3] * 10, 100))
    reasons = []
    while (outcome := engine.engine.step()) is not None:
        reasons += [token.finish for token in outcome.tokens]
    assert reasons == [None] * 5 + [FinishReason.CONTEXT]


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [((), "prompt is empty"), ((VOCAB := EMULATION.vocab_size,), "token ids outside"), ((1,) * 16, "leave no room")],
)
def test_what_does_not_fit_is_refused(prompt: tuple[int, ...], sentence: str) -> None:
    """A request that can never run is refused at once, in words."""
    engine = small(64, 4)
    with pytest.raises(InvalidRequest, match=sentence):
        engine.engine.submit(a_request(prompt))
    with pytest.raises(InvalidRequest, match=sentence):
        engine.engine.ingests.promise(a_request(prompt))


def test_bounds_on_queue_and_parked_kv() -> None:
    """Past its bounds the engine says that it is busy instead of taking on more."""
    pool: PoolConfig = msgspec.structs.replace(POOL, max_waiting=1)
    engine = SmallEngine(64, pool)
    engine.engine.submit(a_request([1], request_id="a"))
    with pytest.raises(CapacityError, match="no place for tier default: 1 wait"):
        engine.engine.submit(a_request([1], request_id="b"))
    engine.run()
    engine.engine.exports.max_parked_blocks = 1
    engine.engine.exports.submit(a_request([1], request_id="c"))
    engine.run()
    with pytest.raises(CapacityError, match="wait to be passed on"):
        engine.engine.exports.submit(a_request([1], request_id="d"))


def test_device_failure_concerns_one_request() -> None:
    """An engine that fails on one request reports it and answers the others."""
    pool = msgspec.structs.replace(POOL, emulation=msgspec.structs.replace(EMULATION, fail_at=2))
    engine = SmallEngine(64, pool)
    engine.engine.submit(a_request([1, 2, 3], 2, "short"))
    engine.engine.submit(a_request([1, 2, 3], 5, "long"))
    failed, finished = [], []
    while (outcome := engine.engine.step()) is not None:
        failed += outcome.failed
        finished += outcome.finished
    assert [(failure.request_id, failure.kind) for failure in failed] == [("long", FailureKind.ENGINE)]
    assert [request_id for request_id, _ in finished] == ["short"]
    assert engine.engine.load().blocks.live == 0
