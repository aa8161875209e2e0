"""SIGKILL of the prefill worker, the decode worker and the gateway at random moments under load.

``python -m tests.kills`` is the whole of it; ``tests/e2e/test_kills.py`` a short one.
"""
