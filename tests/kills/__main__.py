"""``python -m tests.kills``: a hundred kills, a table of what became of every answer, and whether all was well."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.kills.run import kill_under_load


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of targets, moments and questions (default: 0)")
    parser.add_argument("--workers", type=int, default=1, help="of each role (default: 1)")
    parser.add_argument("--demo", action="store_true", help="the demo model in place of emulated engines")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        code, _ = kill_under_load(
            Path(directory), options.kills, options.seed, demo=options.demo, workers=options.workers
        )
    if code:
        print(f"run it again with: python -m tests.kills --seed {options.seed} --kills {options.kills}")
    return code


if __name__ == "__main__":
    sys.exit(main())
