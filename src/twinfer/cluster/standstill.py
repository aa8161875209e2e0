"""While a launcher changes workers, roles stay as they are.

1. The launcher writes an order into its roster, with a number, and with the workers whose roles it has to know.
2. The gateway that changes roles wishes for no change any more, and waits until it reaches all of these and none is
   turning. Then it answers with the number and with their roles (``core.process.Standstill``).
3. The launcher goes by these, and takes its order back at the end. A gateway that is started meanwhile finds it there.
"""

from pathlib import Path

import msgspec

from twinfer.core.ids import WorkerId

_NAME = "roles.stay"


class Order(msgspec.Struct, frozen=True):
    """Roles stay; those of these workers are to be told."""

    number: int
    workers: tuple[WorkerId, ...]


def order_standstill(roster: Path, order: Order) -> None:
    """Roles stay from now on."""
    draft = roster / f"{_NAME}.new"
    draft.write_bytes(msgspec.json.encode(order))
    draft.replace(roster / _NAME)


def end_standstill(roster: Path) -> None:
    """They may be changed again."""
    (roster / _NAME).unlink(missing_ok=True)


def standing_order(roster: Path) -> Order | None:
    """The order, where there is one."""
    try:
        return msgspec.json.decode((roster / _NAME).read_bytes(), type=Order)
    except FileNotFoundError:
        return None
