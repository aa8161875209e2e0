"""End to end: real processes, real sockets, real clients."""

import pytest

pytest.register_assert_rewrite("tests.e2e.deployment")
