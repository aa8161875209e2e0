"""Writes docs/validation.md and its figure.

python -m bench.validation
python -m bench.validation --check
"""

import argparse
import sys
from pathlib import Path

from bench.pages import bring
from bench.validation.page import FIGURE, figure, judge, page
from twinfer.devices.catalogue import Catalogue

DOCS = Path(__file__).parents[2] / "docs"


def main(arguments: list[str]) -> int:
    """Exit code 1 where ``--check`` finds that a file would change."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.validation", description="hold the catalogue to what others measured"
    )
    parser.add_argument("--check", action="store_true", help="write nothing, and say which files would change")
    parsed = parser.parse_args(arguments)
    catalogue = Catalogue()
    judgement = judge(catalogue)
    files = {DOCS / "validation.md": page(judgement, catalogue), DOCS / "figures" / FIGURE: figure(judgement)}
    return bring(files, check=parsed.check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
