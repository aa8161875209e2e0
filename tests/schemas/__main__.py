"""``python -m tests.schemas``: answers of the demo model to random schemas, over a prefill and a decode worker."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.e2e.deployment import serving
from tests.schemas.run import SERVING, ask_all


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(prog="python -m tests.schemas", description=__doc__)
    parser.add_argument("--schemas", type=int, default=500, help="how many (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="of schemas and answers (default: 0)")
    parser.add_argument("--max-tokens", type=int, default=400, help="of each answer (default: 400)")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory), "", *SERVING) as deployment:
        tally = asyncio.run(ask_all(deployment.url, options.schemas, options.seed, options.max_tokens))
    for (door, outcome), count in sorted(tally.counts.items()):
        print(f"{door:10}{outcome:12}{count:6}")
    outcomes = Counter[str]()
    for (_, outcome), count in tally.counts.items():
        outcomes[outcome] += count
    finished = outcomes["valid"] + outcomes["wrong"]
    print(
        f"{finished} of {options.schemas} answers were finished, {outcomes.get('valid', 0)} of them are right;", end=" "
    )
    print(f"routes: {dict(tally.routes)}; {time.monotonic() - started:.0f} s, seed {options.seed}")
    print(*tally.examples[:10], sep="\n")
    return 1 if tally.examples else 0


if __name__ == "__main__":
    sys.exit(main())
