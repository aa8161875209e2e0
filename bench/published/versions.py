"""With what it was measured: versions of the client, of Twinfer and of the peers."""

from collections.abc import Iterator, Sequence

from bench.published.systems import PINNED
from twinfer.loadtest.result import Result


def versions(results: Sequence[Result]) -> Iterator[str]:
    """One line for each; Twinfer's are those that measured, in case a campaign went on later."""
    yield "## Versions"
    yield ""
    for said in sorted(
        {f"Twinfer {one.machine.twinfer} at {one.machine.revision or 'no revision'}" for one in results}
    ):
        yield f"- {said}"
    for system in sorted({one.machine.system for one in results}):
        yield f"- {system}"
    yield from (f"- {name}" for name in PINNED)
