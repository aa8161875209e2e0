"""``make accounts``: quotas, ledger and responses say the same after cancels, kills and retries."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.accounts.kills import Plan
from tests.accounts.run import run


def main() -> int:
    """Run; the exit code says whether something does not add up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=40, help="of workers")
    parser.add_argument("--gateway-kills", type=int, default=40)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="accounts-", dir="/tmp") as name:
        for variable in [variable for variable in os.environ if variable.startswith("TWINFER_")]:
            del os.environ[variable]
        findings = run(
            Path(name),
            Plan(arguments.requests, arguments.kills, arguments.gateway_kills, arguments.clients, arguments.seed),
        )
    print("\n".join(findings) if findings else "everything adds up")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
