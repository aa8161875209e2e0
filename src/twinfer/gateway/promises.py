"""Whether a promised time to the first token can be kept, before anything is begun. Pure."""

from twinfer.core.errors import CapacityError
from twinfer.router.predict import HOPELESS


def check_promise(promised_s: float, foreseen_s: float | None) -> None:
    """Refuse what would come too late for certain.

    Args:
        promised_s: time to the first token by its inference profile; 0 promises none.
        foreseen_s: what the router predicts; ``None`` where it knows nothing of costs.

    Raises:
        CapacityError: it would be late, whatever the error of the prediction; it says when enough of the prompts that
            are before it will be computed.
    """
    if not promised_s or foreseen_s is None or foreseen_s <= HOPELESS * promised_s:
        return
    raise CapacityError(
        f"The first token would come after {foreseen_s:.1f} s, and this inference profile promises {promised_s:g} s; "
        f"try again later.",
        foreseen_s - promised_s,
    )
