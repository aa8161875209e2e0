"""While a launcher changes workers, roles stay as they are.

1. The launcher writes an order into its roster, with a number.
2. The gateway that changes roles wishes for no change any more, and waits until none is under way. Then it answers with
   the number and with the roles (``core.process.Standstill``).
3. The launcher goes by these, and takes its order back at the end. A gateway that is started meanwhile finds it there.
"""

from pathlib import Path

_NAME = "roles.stay"


def order_standstill(roster: Path, number: int) -> None:
    """Roles stay from now on; the number is above 0."""
    draft = roster / f"{_NAME}.new"
    draft.write_text(str(number))
    draft.replace(roster / _NAME)


def end_standstill(roster: Path) -> None:
    """They may be changed again."""
    (roster / _NAME).unlink(missing_ok=True)


def standing_order(roster: Path) -> int:
    """The order's number; 0 where there is none."""
    try:
        return int((roster / _NAME).read_text())
    except FileNotFoundError:
        return 0
