"""Writes docs/claims.md and its figures.

python -m bench.claims
python -m bench.claims --check
"""

import argparse
import sys
from pathlib import Path

from bench.claims.page import figures, page
from bench.pages import bring
from twinfer.devices.catalogue import Catalogue

DOCS = Path(__file__).parents[2] / "docs"


def main(arguments: list[str]) -> int:
    """Exit code 1 where ``--check`` finds that a file would change."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims", description="recompute the announcement's claims")
    parser.add_argument("--check", action="store_true", help="write nothing, and say which files would change")
    parsed = parser.parse_args(arguments)
    catalogue = Catalogue()
    drawn = {DOCS / "figures" / name: svg for name, svg in figures(catalogue).items()}
    return bring({DOCS / "claims.md": page(catalogue), **drawn}, check=parsed.check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
