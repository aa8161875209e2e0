"""Benchmarks of parts of Twinfer, each beside its limit or a baseline in the same run."""
