"""What is read from the metrics of real reports."""

from twinfer.chaos.watch import Accounts, Scrape, read_scrape
from twinfer.core.capabilities import Capabilities, Fingerprint, Role, WorkerIdentity
from twinfer.core.ids import Epoch, ModelId, WorkerId
from twinfer.core.layout import KVLayout
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.gateway.recovery_metrics import RecoveryMetrics
from twinfer.gateway.worker_metrics import render


def identity(name: str, role: Role) -> WorkerIdentity:
    """Some worker."""
    layout, fingerprint = KVLayout(1, 1, 8, 16, "fp32"), Fingerprint("w", "t", 1, 1, 8, "rope")
    model = Capabilities(ModelId("a.model"), fingerprint, layout, "fp32/fp32", 9, 64, 100)
    return WorkerIdentity(WorkerId(name), Epoch("0" * 16), role, model, "unix:/nowhere")


def test_blocks_and_unrest() -> None:
    """Free, cached and live blocks have their place; a worker at rest holds none for anybody."""
    recovery = RecoveryMetrics()
    recovery.recovered.inc(3)
    calm = LoadReport(BlockCounts(total=9, free=5, cached=4, live=0), Counters())
    busy = LoadReport(
        BlockCounts(total=9, free=2, cached=1, live=3, quarantined=2, promised=1),
        Counters(),
        running=2,
        handoffs={"sink_receiving": 1},
    )
    reports = [(identity("prefill-0", Role.PREFILL), calm), (identity("decode-0", Role.DECODE), busy)]
    scrape = read_scrape(render(reports) + recovery.render())
    assert scrape.recovered == 3
    assert (scrape.unplaced("prefill-0"), scrape.unrest("prefill-0")) == (0, {})
    assert scrape.unplaced("decode-0") == 3
    assert scrape.unrest("decode-0") == {
        "live": 3,
        "promised": 1,
        "quarantined": 2,
        "running": 2,
        "sink_receiving": 1,
        "blocks in no state": 3,
    }


def a_scrape(**free: int) -> Scrape:
    """Workers of nine blocks, so many of them free and the others nowhere."""
    blocks = {name: {"total": 9, "free": number, "cached": 0, "live": 0} for name, number in free.items()}
    return Scrape(blocks, {}, 0)


def test_accounts_close_when_in_order() -> None:
    """Whatever is out of order before the time is asked again; who does not answer, too."""
    accounts = Accounts({"a", "b", "c"}, due=10.0)
    scrape = a_scrape(a=9, b=7)
    assert accounts.look(scrape, 9.0, scrape.unplaced) == {}
    assert accounts.open == {"b", "c"}
    scrape = a_scrape(a=0, b=9, c=9)
    assert accounts.look(scrape, 9.5, scrape.unplaced) == {}
    assert accounts.open == set()


def test_a_lost_block_is_found_when_due() -> None:
    """Once, with its number; a scrape begun before the time does not count."""
    accounts = Accounts({"a", "b"}, due=10.0)
    scrape = a_scrape(a=8)
    assert accounts.look(scrape, 10.0, scrape.unplaced) == {}
    assert accounts.look(scrape, 10.1, scrape.unplaced) == {"a": 1}
    assert accounts.look(scrape, 10.2, scrape.unplaced) == {}
    assert accounts.open == {"b"}
