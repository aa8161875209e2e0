"""A whole campaign in small: one emulated deployment of Twinfer, one system that cannot start, and the page of both."""

from pathlib import Path

import pytest
from bench.published.campaign import Campaign, free_ports
from bench.published.cells import Cell, Manner, failure, measured
from bench.published.launch import Program, StartError
from bench.published.report import page
from bench.published.standing import Standing
from bench.published.systems import MODEL, Site, System
from bench.published.twinfer_systems import served
from bench.published.workloads import Fixed, Workload

from twinfer.core.capabilities import Role
from twinfer.core.config import Config, EmulationConfig, IdentityConfig, ModelConfig, PoolConfig
from twinfer.loadtest.slo import Objectives

CHAT = Workload("chat", "chat", "short", Fixed(24, 4), 15.0, 1.0, Objectives(ttft_s=30.0, tpot_s=10.0))


def emulated(site: Site) -> list[Program]:
    """``twinfer serve`` with one emulated worker."""
    pools = (PoolConfig("both", Role.BOTH, engine="emulated", kv_mib=16, emulation=EmulationConfig(draw_below=97)),)
    identity = IdentityConfig(database=f"sqlite:///{site.folder / 'twinfer.db'}")
    return [served(Config(model=(ModelConfig(id=MODEL),), pool=pools, identity=identity), site)]


def absent(site: Site) -> list[Program]:
    """What is not installed."""
    raise StartError("not installed; see make bench-setup")


@pytest.mark.e2e
def test_a_campaign(tmp_path: Path) -> None:
    """The cell is measured, the reason is kept, and a second campaign has nothing to do but to try that one again."""
    ours = System("twinfer", "Twinfer", "twinfer", "bf16", "disaggregated", 1.0, emulated)
    theirs = System("peer", "a peer", "vllm", "bf16", "peer", 1.0, absent)
    said: list[str] = []
    site = Site(tmp_path, tmp_path, tmp_path, (0,), free_ports())
    manner, cells = Manner(max_lag_ms=60_000.0), (Cell(ours, CHAT), Cell(theirs, CHAT))
    campaign = Campaign(cells, manner, site, tmp_path, said.append)
    campaign.run()
    result = measured(Cell(ours, CHAT), tmp_path)
    assert result is not None, said
    found = result.main.summary
    assert {} == found.errors
    assert found.attained is not None
    assert 1.0 == found.attained.value
    assert 24 == pytest.approx(found.input_tokens / found.requests, abs=6)
    assert {4} == {one.output_tokens for one in result.main.records}
    assert "not installed; see make bench-setup" == failure(tmp_path, Cell(theirs, CHAT))
    assert 2 == sum("min left" in line and line.startswith("starting") for line in said)
    said.clear()
    campaign.run()
    assert ["starting a peer; about 0 min left"] == [line for line in said if line.startswith("starting")]
    text = page(Standing(cells, manner, tmp_path))
    assert "- a peer (bf16) is missing, left out: not installed; see make bench-setup." in text
