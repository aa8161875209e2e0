"""What is said of a simulation."""

import html.parser
import re

import msgspec
import pytest
from rich.console import Console

from tests.simulator.small import STEP_S, a_config, a_request, a_scenario, on_devices
from twinfer.core.config import Config
from twinfer.simulator.html import page
from twinfer.simulator.report import report
from twinfer.simulator.run import simulate
from twinfer.simulator.scenario import Scenario
from twinfer.simulator.summary import Slo, Summary, summarise

TRACE = [a_request(0.1 * number, 100 + number, 5, number) for number in range(20)]


def summary_of(config: Config, slo: Slo = Slo()) -> Summary:  # noqa: B008
    """Simulate the trace."""
    scenario: Scenario = a_scenario(config)
    return summarise("trace <1>", scenario, simulate(scenario, TRACE), slo)


def test_counts_agree() -> None:
    """Requests, tokens and time are the same seen from clients and from workers."""
    found = summary_of(a_config(2, 2))
    assert ({"ok": 20}, 20, 20) == (found.outcomes, found.disaggregated, sum(found.timeline.arrivals))
    prompts = sum(one.input_tokens for one in TRACE)
    assert prompts == sum(one.prefill_tokens + one.cached_tokens for one in found.workers)
    assert 20 * 4 == sum(one.decode_tokens for one in found.workers) == found.itl_s.number
    assert found.input_tokens_per_s * found.duration_s == pytest.approx(prompts)
    for one in found.workers:
        assert one.utilisation == pytest.approx(sum(one.busy) / len(one.busy), abs=1e-3)
    assert STEP_S == pytest.approx(found.tpot_s.p50, rel=0.2)


def test_slo() -> None:
    """Requests within both bounds, and per second."""
    whole = summary_of(a_config())
    half = summary_of(a_config(), Slo(ttft_s=whole.ttft_s.p50))
    assert (1.0, 0.5, 0.0) == (
        whole.slo_attained,
        half.slo_attained,
        summary_of(a_config(), Slo(tpot_s=1e-6)).slo_attained,
    )
    assert half.goodput_per_s == pytest.approx(10 / half.duration_s)


def test_costs() -> None:
    """Price and nameplate power of all workers for all the time, over what was served; none where one is missing."""
    found = summary_of(on_devices(a_config(1, 2), "h100"))
    pool = found.pools[0]
    assert pool.price_per_hour is not None
    usd = 3 * pool.price_per_hour * found.duration_s / 3600
    assert found.costs.usd_per_million_output_tokens == pytest.approx(usd * 1e6 / (20 * 5))
    assert "estimate" == found.costs.quality
    unknown = summary_of(a_config())
    assert (None, ("prefill", "decode")) == (unknown.costs.usd_per_million_tokens, unknown.costs.unpriced)


def test_json() -> None:
    """It can be written and read back."""
    found = summary_of(a_config())
    assert found == msgspec.json.decode(msgspec.json.encode(found), type=Summary)


class Tags(html.parser.HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "rect", "path", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            if tag != "rect":
                self.wrong.append(tag)
            return
        self.open.pop()


def test_the_page_needs_nothing_else() -> None:
    """Well-formed, eight plots, a row for each worker, names escaped, and nothing to be fetched or run."""
    text, tags = page(summary_of(a_config(3, 2))), Tags()
    tags.feed(text)
    assert ([], []) == (tags.open, tags.wrong)
    assert 8 == tags.seen.count("svg")
    assert not {"script", "link", "img", "iframe"} & set(tags.seen)
    assert [] == re.findall(r"(?:https?:)?//|url\(|@import", text)
    assert "trace &lt;1&gt;" in text
    assert "nan" not in text.lower().split(">")
    assert 2 == text.count(">decode-1</text>")


def test_the_table_says_it_all() -> None:
    """Latencies, workers, outcomes, costs; many workers are cut short."""
    console = Console(width=160, record=True)
    with console.capture() as captured:
        console.print(report(summary_of(on_devices(a_config(20, 1), "h100"))))
    text = captured.get()
    for words in ("TTFT", "TPOT", "ITL", "prefill-15", "and 5 more", "20 ok", "worst number used: estimate", "$"):
        assert words in text
