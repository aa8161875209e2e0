"""``python -m twinfer``."""

import sys

from twinfer.cli import main

sys.exit(main())
