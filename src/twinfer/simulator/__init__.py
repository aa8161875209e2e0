"""The product under a virtual clock: traces replayed against devices that are not here."""
