"""``python -m twinfer.gateway``: a gateway under a launcher, which writes its spec to standard input."""

import sys

from twinfer.gateway.process import run_gateway

if __name__ == "__main__":
    sys.exit(run_gateway())
