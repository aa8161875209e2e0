"""One file per public API: how its requests are read and its answers written."""
