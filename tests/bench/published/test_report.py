"""The page says who is ahead, also where that is a peer, and what could not be measured and why."""

import re
from pathlib import Path
from xml.etree import ElementTree

from bench.published.cells import Cell, Manner, failure_path
from bench.published.report import FIGURE, figures, page
from bench.published.standing import Standing
from bench.published.systems import PINNED

from tests.bench.published import made

CHAT, CODE = made.workload("chat"), made.workload("code")


def standing(folder: Path) -> Standing:
    """Twinfer is ahead in chat and behind in code; a peer could not be started."""
    ours, theirs = made.system("twinfer", "disaggregated"), made.system("vllm")
    missing = made.system("llama")
    for system, chat, code in ((ours, 60, 20), (theirs, 20, 60)):
        made.measured(Cell(system, CHAT), folder, [made.trial(chat, 10.0)])
        made.measured(Cell(system, CODE), folder, [made.trial(code, 10.0)])
    failure_path(folder, missing).write_text("it needs a compiler\n")
    return Standing([Cell(one, each) for one in (ours, theirs, missing) for each in (CHAT, CODE)], Manner(), folder)


def test_a_page(tmp_path: Path) -> None:
    """Both duels with their ratios, the one that was lost in bold, the missing peer with its reason."""
    text = page(standing(tmp_path))
    lines = text.splitlines()
    assert "$" not in text
    duels = [line for line in lines if line.endswith(("| ahead |", "| **behind** |"))]
    heads = [f"| {workload} | bf16 | {how} |" for how in ("stated", "interactive") for workload in ("chat", "code")]
    assert heads == [line[: len(head)] for line, head in zip(duels, heads, strict=True)]
    assert [" 3.00 ", " 0.33 "] * 2 == [line.split("|")[8] for line in duels]
    said = "**1.00 times the best peer** over all workloads; chat 3.00, code 0.33 (**Vllm is ahead**)."
    assert [f"- bf16, {how} objectives: {said}" for how in ("stated", "interactive")] == [
        line for line in lines if line.startswith("- bf16, ")
    ]
    assert "- Llama (bf16) is missing, left out: it needs a compiler." in lines
    assert 2 == sum("| left out: it needs a compiler |" in line for line in lines)


def test_a_figure(tmp_path: Path) -> None:
    """A bar with its number for every system that was measured, below the name of its workload."""
    svg = figures(standing(tmp_path))[FIGURE]
    texts = [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]
    expected = [
        "chat",
        "Twinfer (bf16)",
        "10.00",
        "Vllm (bf16)",
        "3.33",
        "code",
        "Twinfer (bf16)",
        "3.33",
        "Vllm (bf16)",
        "10.00",
    ]
    assert expected == texts[2:-1]


def test_nothing_measured(tmp_path: Path) -> None:
    """A page of reasons can be written before anything worked."""
    text = page(Standing([Cell(made.system("vllm"), CHAT)], Manner(search=True), tmp_path))
    assert "- Vllm (bf16) is missing, not measured." in text


def test_versions() -> None:
    """The peers' versions in the report are those that are installed."""
    root = Path(__file__).parents[3]
    installed = (root / "tools" / "install_peers.sh").read_text() + (root / "constraints.txt").read_text()
    numbers = [number for line in PINNED for number in re.findall(r"\d+\.\d+\.\d+", line)]
    assert [] == [number for number in numbers if f"=={number}" not in installed]
