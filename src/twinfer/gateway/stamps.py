"""When things happened to one request, and what that makes of its journey."""

from twinfer.core.route import Route
from twinfer.core.tokens import Timings
from twinfer.gateway.base import Journey


class Stamps:
    """When things happened, on the gateway's clock, in seconds."""

    def __init__(self) -> None:
        self.reserve_sent = self.granted = self.fetch_began = self.fetch_ended = 0.0
        self.first_token = self.decode_began = self.last_token = 0.0

    def journey(self, route: Route, prefill: Timings, decode: Timings) -> Journey:
        """What the stamps and both workers' timings say together."""
        split = route.prefill is not None
        computing = prefill if split else decode
        return Journey(
            route=route,
            queue_ms=_ms(computing.queue_s),
            reserve_ms=_ms(self.granted - self.reserve_sent) if split else 0.0,
            fetch_ms=_ms(max(0.0, self.fetch_ended - self.fetch_began)),
            prefill_ms=_ms(computing.prefill_s),
            exposed_transfer_ms=_ms(max(0.0, self.decode_began - self.first_token)) if self.decode_began else 0.0,
            decode_ms=_ms(max(0.0, self.last_token - (self.decode_began or self.first_token))),
            cached_tokens=computing.cached_tokens,
            transfer_bytes=decode.transfer_bytes,
            pinned_tokens=computing.pinned_tokens,
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
