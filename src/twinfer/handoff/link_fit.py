"""Learns from the transfers to one worker what they cost, by where they came from."""

from twinfer.core.cost import LinkCost
from twinfer.core.ids import WorkerId
from twinfer.core.line_fit import LineFit

UNKNOWN = (0.0, 0.0)


class LinkFits:
    """All links to one worker; ``seed`` is what each begins with, such as a catalogue's link."""

    def __init__(self, seed: LinkCost | None = None) -> None:
        self._seed = UNKNOWN if seed is None else (seed.fixed_s, seed.byte_s)
        self._fits: dict[WorkerId, LineFit] = {}
        self._ended: dict[WorkerId, float] = {}

    def observe(self, source: WorkerId, num_bytes: float, seconds: float, ended: float = 0.0) -> None:
        """So many bytes came from there, in that time, the last one then."""
        fit = self._fits.get(source)
        if fit is None:
            fit = self._fits[source] = LineFit(self._seed)
        fit.observe((1.0, num_bytes), seconds, ended - seconds - self._ended.get(source, 0.0))
        self._ended[source] = ended

    def costs(self) -> dict[WorkerId, LinkCost]:
        """What is known of each link that was used."""
        return {
            source: LinkCost(fit.line[0], fit.line[1], fit.pace(), fit.num_observed)
            for source, fit in self._fits.items()
            if fit.knows
        }
