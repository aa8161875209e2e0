"""How much of a prompt fits into a step."""

from hypothesis import given
from hypothesis import strategies as st

from twinfer.core.cost import StepCost, prompt_work
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.engine.step_room import EVEN, LEAST, StepRoom, told

costs = st.builds(
    StepCost,
    fixed_s=st.floats(0.0, 0.1),
    token_s=st.floats(0.0, 0.01),
    pair_s=st.floats(0.0, 1e-5),
    row_s=st.floats(0.0, 0.01),
    context_s=st.floats(0.0, 1e-5),
    pace=st.floats(0.1, 10.0),
    hides=st.sampled_from([0.0, 0.9]),
)
prompts = st.lists(st.tuples(st.integers(1, 2048), st.integers(0, 8192)), min_size=1, max_size=5)


def step_s(cost: StepCost, rows: int, context: int, taken: list[tuple[int, int]]) -> float:
    """What a step takes with these pieces of prompts, each a length and a start."""
    decode = cost.decode_s(rows, context)
    computing = sum(cost.prefill_s(prompt_work(start, start + length)) for length, start in taken)
    return cost.pace * (decode + max(0.0, computing - cost.hides * decode))


@given(costs, st.floats(0.01, 1.0), st.integers(1, 64), st.integers(0, 100_000), prompts)
def test_a_step_keeps_its_goal_or_takes_least(
    cost: StepCost, goal_s: float, rows: int, context: int, asked: list[tuple[int, int]]
) -> None:
    """The step stays within its goal, or what answers take alone, or a tile above it, or has little of prompts."""
    room = StepRoom(cost, goal_s, rows, context)
    taken: list[tuple[int, int]] = []
    for wanted, start in asked:
        length = room.of(wanted, start)
        assert 0 <= length <= wanted
        assert length or room.is_full
        room.take(length, start)
        taken.append((length, start))
    longest = max(taken, key=lambda piece: piece[1])
    over = cost.pace * cost.prefill_s(prompt_work(longest[1] + longest[0], longest[1] + longest[0] + EVEN))
    assert sum(length for length, _ in taken) <= LEAST + EVEN or (
        step_s(cost, rows, context, taken) <= 1.0001 * max(goal_s, step_s(cost, rows, context, [])) + over
    )


@given(costs, st.floats(0.01, 1.0), st.integers(1, 2048))
def test_a_prompt_gets_on(cost: StepCost, goal_s: float, wanted: int) -> None:
    """However long answers take, some positions are computed, and all that their decoding hides."""
    decode_s = cost.decode_s(64, 100_000)
    found = StepRoom(cost, goal_s, 64, 100_000).of(wanted, 0)
    assert min(wanted, LEAST) <= found
    more = prompt_work(0, min(wanted, found + EVEN))
    assert found == wanted or cost.prefill_s(more) >= 0.9999 * cost.hides * decode_s


def test_the_pieces_are_told() -> None:
    """A router learns in how many steps a prompt is computed beside the answers that are there."""
    cost = StepCost(0.05, 0.001, 0.0, 0.0, 0.0)
    reports = [
        told(LoadReport(BlockCounts(1, 1, 0, 0), Counters(), decode_rows=rows), cost, 0.15).cost for rows in (0, 1)
    ]
    assert [512, 96] == [report.chunk_tokens for report in reports if report is not None]
