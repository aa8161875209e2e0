from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.model.driver import GREEDY, make_request
from twinfer.core.request import Sampling, Stopping
from twinfer.core.step import Draw, Slice
from twinfer.grammar.masks import Masks
from twinfer.model import sampler
from twinfer.model.kernels.library import highest
from twinfer.model.sampler import Sampler

pytestmark = pytest.mark.torch

VOCAB = 1000


def drawing(sampling: Sampling, index: int = 0, **options: object) -> Slice:
    """A slice that draws output token ``index``."""
    emitted = list(range(index))
    name = str(options.pop("name", "a"))
    return Slice(make_request(name, [5, 6], sampling, **options), [0], 0, [0], index, emitted)


def random_logits(rows: int, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    """Logits that are nothing special."""
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * spread


def tokens(logits: torch.Tensor, parts: list[Slice]) -> list[int]:
    """What is drawn."""
    draws = Sampler().sample(logits, parts)
    return [draw.token_id for draw in draws if draw is not None]


def test_greedy() -> None:
    """The highest logit wins, the lowest id among equals."""
    logits = random_logits(3)
    logits[1, [40, 7, 90]] = 50.0
    expected = logits.numpy().argmax(1).tolist()
    assert expected[1] == 7
    assert expected == tokens(logits, [drawing(GREEDY)] * 3)


def test_greedy_sees_penalties_and_minimum_length() -> None:
    """Greedy rows are changed too, and only those concerned."""
    logits = random_logits(3)
    best = logits.argmax(1).tolist()
    parts = [
        drawing(Sampling(temperature=0.0, logit_bias={best[0]: -100.0}), name="a"),
        drawing(GREEDY, name="b", stopping=Stopping(9, min_tokens=1, stop_token_ids=(best[1],))),
        drawing(GREEDY, name="c"),
    ]
    second = logits.argsort(1, descending=True)[:, 1].tolist()
    assert [second[0], second[1], best[2]] == tokens(logits, parts)


@pytest.mark.parametrize("temperature", [1e-4, 1e-300])
def test_nearly_cold_is_greedy(temperature: float) -> None:
    """A tiny temperature leaves one candidate."""
    logits = random_logits(4)
    assert logits.argmax(1).tolist() == tokens(logits, [drawing(Sampling(temperature=temperature))] * 4)


def test_draw_does_not_depend_on_the_batch() -> None:
    """Every row draws what it draws alone, whatever its neighbours and place."""
    samplings = [
        Sampling(seed=1),
        Sampling(seed=2, temperature=0.7, top_p=0.9),
        GREEDY,
        Sampling(seed=3, temperature=1.5, top_k=400),
        Sampling(seed=4, min_p=0.02, repetition_penalty=1.3),
        Sampling(seed=5, temperature=5.0),
    ]
    logits = random_logits(6)
    parts = [drawing(sampling, index=3, name=str(i)) for i, sampling in enumerate(samplings)]
    alone = [tokens(logits[i : i + 1], [part])[0] for i, part in enumerate(parts)]
    assert alone == tokens(logits, parts)
    assert alone[::-1] == tokens(logits.flip(0), parts[::-1])


def test_flat_rows_are_drawn_beyond_the_head() -> None:
    """Where the best few have little mass, all tokens take their turn, equals by id."""
    parts = [drawing(Sampling(seed=9), index=index, name=str(index)) for index in range(400)]
    drawn = tokens(torch.zeros(400, VOCAB), parts)
    # 9 degrees of freedom: above 27.9 with probability 0.001; the seed is fixed.
    counts = Counter(token // 100 for token in drawn)
    assert sum((counts[i] - 40) ** 2 / 40 for i in range(10)) < 27.9


def test_distribution_with_temperature() -> None:
    """Temperature 2 draws by the square roots of the probabilities."""
    row = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(3000, 4)
    parts = [drawing(Sampling(temperature=2.0, seed=1), index=i, name=str(i)) for i in range(3000)]
    counts = Counter(tokens(row, parts))
    weights = np.exp(row[0].numpy() / 2.0)
    expected = weights / weights.sum() * 3000
    # 3 degrees of freedom: above 16.3 with probability 0.001; the seed is fixed.
    assert sum((counts[i] - expected[i]) ** 2 / expected[i] for i in range(4)) < 16.3


def test_truncation() -> None:
    """top_k, top_p and min_p leave the tokens that their definitions leave."""
    probabilities = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    logits = torch.from_numpy(np.log(probabilities)).float().expand(300, 5)
    for options, kept in (({"top_k": 2}, {0, 1}), ({"top_p": 0.8}, {0, 1, 2}), ({"min_p": 0.3}, {0, 1, 2})):
        parts = [drawing(Sampling(seed=2, **options), index=i, name=str(i)) for i in range(300)]
        assert kept == set(tokens(logits, parts))


def test_logprobs_are_of_the_raw_logits() -> None:
    """Log probabilities know no temperature and no penalty; alternatives are sorted, equals by id."""
    logits = random_logits(3)
    logits[2, [3, 900]] = 40.0
    sampling = Sampling(temperature=0.5, top_k=3, logit_bias={1: 50.0}, seed=3)
    parts = [
        drawing(GREEDY, name="a"),
        drawing(sampling, name="b", top_logprobs=0),
        drawing(GREEDY, name="c", top_logprobs=4),
    ]
    expected = torch.log_softmax(logits.double(), -1)
    first, second, third = Sampler().sample(logits, parts)
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.logprob, first.top) == (None, ())
    assert (second.token_id, second.top) == (1, ())
    assert pytest.approx(expected[1, 1].item(), abs=1e-4) == second.logprob
    best = sorted(range(VOCAB), key=lambda token: (-logits[2, token].item(), token))[:4]
    assert best[:2] == [3, 900]
    assert best == [entry.token_id for entry in third.top]
    assert pytest.approx(expected[2, best].tolist(), abs=1e-4) == [entry.logprob for entry in third.top]
    assert third.top[0].logprob == third.logprob


def test_rows_that_are_not_finite() -> None:
    """NaN or infinity anywhere in a row gives no draw, and leaves the other rows what they are."""
    logits = random_logits(4)
    parts = [drawing(sampling, name=str(i)) for i, sampling in enumerate((GREEDY, Sampling(), GREEDY, Sampling()))]
    expected = Sampler().sample(logits, parts)
    logits[1, 17], logits[2, 3] = torch.nan, -torch.inf
    assert [expected[0], None, None, expected[3]] == Sampler().sample(logits, parts)


def test_large_logits_are_finite() -> None:
    """Logits whose sum overflows are not mistaken for infinite ones."""
    assert [Draw(0)] == Sampler().sample(torch.full((1, VOCAB), 3e38), [drawing(GREEDY)])


def test_half_precision_logits() -> None:
    """Logits of a bf16 model are drawn from as they are."""
    logits = random_logits(2).bfloat16()
    assert logits.float().argmax(1).tolist() == tokens(logits, [drawing(GREEDY)] * 2)


@pytest.mark.parametrize("length", [256, 32_000, 50_001])
def test_best_of_long_rows(length: int) -> None:
    """The head of a row is the same values as topk's, with the ids they are at, whichever way it is found."""
    values = torch.randn(3, length, generator=torch.Generator().manual_seed(length))
    values[1, : length // 2] = values[1, 0]
    best, ids = sampler._top(values, 200)
    assert torch.equal(values.topk(200).values, best)
    assert torch.equal(values.gather(1, ids), best)
    assert [200] * 3 == [len(set(row)) for row in ids.tolist()]


def masks_of(rows: dict[int, Sequence[int]], vocab_size: int) -> Masks:
    """What some rows may draw."""
    permits = np.zeros((len(rows), vocab_size), np.bool_)
    for place, permitted in enumerate(rows.values()):
        permits[place, list(permitted)] = True
    return Masks(tuple(rows), np.packbits(permits, axis=1, bitorder="little").tobytes())


@pytest.mark.parametrize("vocab_size", [7, 8, 4097])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_only_what_a_grammar_permits_is_drawn(vocab_size: int, temperature: float) -> None:
    """Whatever penalties and biases say, with one token left or some; rows without a mask are as they were."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn((4, vocab_size), generator=generator)
    bias = {0: 100.0}
    parts = [
        drawing(Sampling(temperature=temperature, seed=row, top_p=0.9, logit_bias=bias), name=str(row))
        for row in range(3)
    ]
    parts.append(drawing(Sampling(temperature=temperature, seed=9)))
    masks = masks_of({0: [vocab_size - 1], 2: [1, 3, 5]}, vocab_size)
    free = Sampler().sample(logits, parts)
    held = Sampler().sample(logits, parts, masks)
    assert held[0] is not None
    assert held[2] is not None
    assert vocab_size - 1 == held[0].token_id
    assert held[2].token_id in (1, 3, 5)
    assert (free[1], free[3]) == (held[1], held[3])


def test_masks_do_not_change_reported_logprobs() -> None:
    """They are the model's own, of the token that was drawn."""
    logits = torch.tensor([[3.0, 2.0, 1.0]])
    part = drawing(GREEDY, top_logprobs=1)
    [draw] = Sampler().sample(logits, [part], masks_of({0: [2]}, 3))
    assert draw is not None
    expected = logits.log_softmax(-1)[0]
    assert (2, pytest.approx(expected[2].item())) == (draw.token_id, draw.logprob)
    assert [(0, pytest.approx(expected[0].item()))] == [(top.token_id, top.logprob) for top in draw.top]


@pytest.mark.parametrize("vocab_size", [3, 16, 77, 4096])
def test_the_kernel_finds_the_highest_in_one_pass(vocab_size: int) -> None:
    """The lowest id among equals, also across lanes, and no id where anything is infinite or not a number."""
    logits = torch.randn(6, vocab_size, generator=torch.Generator().manual_seed(vocab_size))
    logits[1, 1:] = 9.0
    logits[2] = torch.finfo(torch.float32).min
    logits[3, vocab_size - 1] = torch.inf
    logits[4, 0] = -torch.inf
    logits[5, vocab_size // 2] = torch.nan
    found = highest(logits)
    assert found in (None, [int(logits[0].argmax()), 1, 0, -1, -1, -1])
    assert None is highest(logits.double())
