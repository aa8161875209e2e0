"""Whether one worker's KV can be read by another, decided before any byte moves."""

from collections.abc import Collection

from twinfer.core.capabilities import Capabilities


def refusal(source: Capabilities, sink: Capabilities, accept: Collection[str]) -> str | None:
    """Why the sink cannot take the source's KV, in words; ``None`` when it can.

    Args:
        source: what the source offers.
        sink: what the sink runs.
        accept: numeric provenances the sink's pool takes besides its own; ``*`` takes any.
    """
    if source.model != sink.model:
        return f"another model: {source.model} there, {sink.model} here"
    difference = sink.fingerprint.difference(source.fingerprint)
    if difference is not None:
        return difference
    if source.layout != sink.layout:
        return f"another KV layout: {source.layout} there, {sink.layout} here"
    if source.provenance != sink.provenance and source.provenance not in accept and "*" not in accept:
        return (
            f"numeric provenance {source.provenance} there, {sink.provenance} here; "
            f"add it to the pool's accept if that is meant"
        )
    return None
