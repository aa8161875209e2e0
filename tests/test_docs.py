"""The documents agree with the code: what is generated is up to date, and what they name exists."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tools import generate_configuration

from twinfer.core.capabilities import Capabilities, Fingerprint, Role, WorkerIdentity
from twinfer.core.config import Config
from twinfer.core.ids import Epoch, ModelId, WorkerId
from twinfer.core.layout import KVLayout
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.gateway.metering import Meter
from twinfer.gateway.recovery_metrics import RecoveryMetrics
from twinfer.gateway.route_metrics import RouteMetrics
from twinfer.gateway.routes import TABLE
from twinfer.gateway.worker_metrics import render, render_impostors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "twinfer"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SUFFIXES = (".py", ".md", ".toml", ".sh", ".txt")


@pytest.fixture(params=PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def page(request: pytest.FixtureRequest) -> Path:
    """Each document in turn."""
    found: Path = request.param
    return found


def test_configuration_is_up_to_date():
    """docs/configuration.md is what the generator writes now."""
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == generate_configuration.page(), "run: python tools/generate_configuration.py"


def test_every_key_has_a_meaning():
    """No key is left unexplained."""
    rows = [line for line in generate_configuration.page().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []


def test_links(page: Path):
    """Every link to a file or folder leads to one."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_files_exist(page: Path):
    """Every file of ours that is named in code style is there, from the repository's root or the package's."""
    named = re.findall(r"`([\w./-]+)`", page.read_text(encoding="utf-8"))
    files = [name for name in named if "/" in name and name.endswith(SUFFIXES)]
    assert [name for name in files if not (ROOT / name).exists() and not (PACKAGE / name).exists()] == []


def test_every_claim_of_security_has_its_tests():
    """Each row of the claims names tests, and each of them is a function in that file."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [line for part in text.split("\n## ")[1:] if part.startswith("Claims") for line in part.splitlines()]
    rows = [row for row in rows if row.startswith("| ") and not row.startswith("| claim |")]
    named = [re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.split(" | ")[2]) for row in rows]
    assert [row for row, tests in zip(rows, named, strict=True) if not tests] == []
    assert len(rows) > 20
    for path, name in {test for tests in named for test in tests}:
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), name


def test_configuration_keys_exist(page: Path):
    """Every key that is named with its table is one, such as ``handoff.lease_s``."""
    tables = {
        "handoff": Config().handoff,
        "link": Config().link,
        "routing": Config().routing,
        "gateway": Config().gateway,
    }
    named = re.findall(r"`(handoff|link|routing|gateway)\.(\w+)[`=]", page.read_text(encoding="utf-8"))
    assert [(table, key) for table, key in named if not hasattr(tables[table], key)] == []


def test_packages_are_all_listed():
    """The architecture's table of packages is the list of folders."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text[text.index("\n## Packages") : text.index("\n## Threads")]
    there = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == there


def test_paths_of_operations_are_served():
    """The paths that operations.md names are rows of the gateway's table."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`GET (/\w+)`", text))
    assert named == {"/healthz", "/readyz", "/metrics"}
    assert named <= {row.path for row in TABLE}


def test_metrics_are_those_there_are():
    """operations.md lists each series of gateway and workers, and no other."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `((?:twinfer|bedrock)_\w+)` ", text, re.MULTILINE))
    gateway = Meter().text() + render_impostors({}) + RecoveryMetrics().render() + RouteMetrics().render()
    assert listed == series(gateway) | series(render([(an_identity(), a_report())]))


def series(text: str) -> set[str]:
    """Names of the series in Prometheus text, as somebody queries them; when each began is left out."""
    families = text_string_to_metric_families(text)
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    return {name for name in names if not name.endswith("_created")}


def an_identity() -> WorkerIdentity:
    """Some worker."""
    layout = KVLayout(1, 1, 8, 16, "fp32")
    fingerprint = Fingerprint("w", "t", 1, 1, 8, "rope")
    model = Capabilities(ModelId("a.model"), fingerprint, layout, "fp32/fp32", 4, 64, 100)
    return WorkerIdentity(WorkerId("decode-0"), Epoch("0" * 16), Role.DECODE, model, "unix:/nowhere")


def a_report() -> LoadReport:
    """A report in which everything is."""
    return LoadReport(BlockCounts(4, 4, 0, 0), Counters(), handoffs={"sink_promised": 1})
