"""Brings docs/validation.md up to date with what was found."""

from bench.pages import bring
from bench.validation.__main__ import DOCS
from bench.validation.page import judge, page
from twinfer.devices.catalogue import Catalogue


def refresh() -> None:
    """Write the page anew."""
    catalogue = Catalogue()
    bring({DOCS / "validation.md": page(judge(catalogue), catalogue)}, check=False)
