"""Moves KV blocks between workers: in one process, through shared memory, over TCP."""
